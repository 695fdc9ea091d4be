"""Hostile contents of a store: texts that are active, break the layout or are huge, unless they are escaped."""

from __future__ import annotations

from datetime import UTC, datetime

from kern_nb.records import Message, Requirement, Run, Session, ToolCall, Usage

HOSTILE = {
    "script": "<script>alert('x')</script><img src=x onerror=alert(1)>",
    "quotes": """both "double" and 'single' & <ampersand> &amp; already""",
    "formula": "between $5 and $10, \\(x\\)",
    "override": "user\u202egnp.exe\u202c and \u2067isolated\u2069, \u200fmarked",
    "arabic": "\u0645\u0631\u062d\u0628\u0627 (hello)",
    "nul": "be\x00fore\x07 \x1b[31mred\x1b[0m \x7f \x85",
    "surrogate": "half \ud83d of a pair, \ufeffand a mark",
    "lines": "first\r\n    indented\n\n\ttab  two  spaces\n- end",
    "unbroken": "A" * 150,
    "closing": "</td></table></div></details><!-- ]]> -->",
}

MARKDOWN = {
    "all": """\
# A *heading* with <b>HTML</b>

A paragraph of **strong**, *emphasized*, ~~deleted~~ and `code <i>` words,
whose lines break where they were broken,
  and keep their indent.

3. three
4. four
   - inside, `__init__` and __init__, 2**8
   - [x] done

> quoted
> twice

| item | price |  |
|:-----|------:|:-:|
| mug `|` | 4.00 | <u>x</u> |
| **all** | 8.00 | \\| |

```python onload=alert(1)
def f(**kwargs):  # *not* emphasized
    return "<script>"
```

---
The end\\. \\(x^2\\) C:\\new""",
    "links": """\
[fine](https://example.com/?a=1&b="2" "Ti<tle") [mail](mailto:a@example.com) [](http://example.com/unnamed)
[script](javascript:alert(1)) [coded](java&#115;cript:alert(1)) [data](data:text/html,<script>alert(1)</script>)
[relative](/lab/tree) [anchor](#x) [file](file:///etc/passwd) [none]() [spaced](<https://example.com/a b>)
[broken out](https://example.com/"onmouseover="alert(1)) [**bold** ![inside](http://example.com/i.png)](https://example.com)
![a picture](http://example.com/spy.png "seen") ![](https://example.com/none.gif) <https://example.com/auto> https://example.com/bare
[defined] <a@example.com>

[defined]: https://example.com/hidden "not hidden\"""",
    "html": """\
**bold** <script>alert(1)</script><img src=x onerror=alert(1)>

<div onclick="alert(1)">
*inside*
</div>

<!-- a comment --> <?php ?> <![CDATA[x]]> </td></table></div></details>""",
    "unseen": """\
- entities: &#8238;gnp.exe&#x202c; &#0; &#x1b; &lt;b&gt; &amp;amp; &nbsp;|
- themselves: user\u202egnp.exe\u202c be\x00fore\x07 \x1b[31mred \ud83d \ufeff
- in `code \u202e\x00`, in [a \u202e link](https://example.com/\u202e\x00\ud83d) and [none](\u202ejavascript:1)

| \u2067 | \x00 |
|-|-|
| \u0645\u0631\u062d\u0628\u0627 | (hello) |

```\u202e
\x00 \u202e
```""",
    "unbroken": f"**{'A' * 150}** `{'B' * 150}`",
    "unclosed": "**[`~~\n> - 1. ```\n| a |\n|--|\n| b | c |\n# \n[x](https://example.com/((((\n" + "*" * 90,
    "plain": "first\r\n    indented\n\n\ttab  two  spaces, 2 * 3 * 4, snake_case_name and __init__, \\(x\\), C:\\*",
}
"""What a model may say: for whom Markdown is text, and for whom it is not."""

LATE = datetime(2026, 1, 1, tzinfo=UTC)

MEGABYTE = "<&> " * 250_000


def hostile_session() -> Session:
    """A session with something hostile in every place that is rendered."""
    bad = HOSTILE["script"]
    calls = [
        ToolCall(tool_call_id="1", tool_name=bad, args={bad: list(HOSTILE.values())}, result="ok", status="completed"),
        ToolCall(tool_call_id="2", tool_name="boom", args="not {json", result=bad, status="failed", duration_s=0.25),
        ToolCall(tool_call_id="3", tool_name="slow", args=None, status="started"),
        ToolCall(tool_call_id="4", tool_name="lost", args=[1], status="unknown", caller="user"),
    ]
    for call in calls:
        call.message_index = len(HOSTILE)
    messages = [Message(role=name, content=text) for name, text in HOSTILE.items()]
    messages.append(Message(role="assistant", content=None, tool_calls=calls))
    messages.append(Message(role="tool", tool_call_id="1", content="ok"))
    messages.append(Message(role="tool", tool_call_id="9", content=f"an answer to no call {bad}"))
    messages.append(Message(role="user", content=[{"type": "text", "text": bad}, {"type": bad, "url": "x"}]))
    messages.append(Message(role="assistant", content={"json": bad}))
    for index, message in enumerate(messages):
        message.message_index = index
    first = Run(
        run_id="r0",
        session_id=f"parent{bad}",
        run_index=0,
        model=bad,
        status="ERROR",
        error=HOSTILE["quotes"],
        messages=messages,
        tool_calls=calls,
        usage=Usage(total_tokens=1234),
        duration_s=75,
    )
    second = Run(run_id="r1", session_id=f"branch{bad}", run_index=1, input=bad, output=HOSTILE["lines"])
    return Session(
        session_id=f"branch{bad}",
        session_data={"session_name": HOSTILE["quotes"]},
        agent_id=bad,
        user_id=HOSTILE["override"],
        runs=[first, second],
        parent_session_id=f"parent{bad}",
        fork_run_index=0,
        created_at=1_795_000_000,
    )


def hostile_answers() -> Session:
    """A session in which a model said all that, and a user the same: that is text."""
    long = "\n\n".join(["**One** of many paragraphs. " * 8] * 12)
    said = [*MARKDOWN.values(), long]
    messages = [Message(role="assistant", content=text, message_index=n) for n, text in enumerate(said)]
    messages.append(Message(role="user", content=MARKDOWN["all"], message_index=len(said)))
    messages.append(Message(role="assistant", content={"**json**": "- x"}, message_index=len(said) + 1))
    run = Run(run_id="r0", session_id="chat", run_index=0, messages=messages)
    return Session(session_id="chat", runs=[run])


def hostile_requirements() -> list[Requirement]:
    """One of each kind and state, with something hostile in every field that is rendered."""
    bad = HOSTILE["script"]
    made = {"created_at": datetime(2026, 11, 20, 19, 0, tzinfo=UTC), "run_id": "r2", "session_id": f"chat{bad}"}
    asked = [
        {"kind": "confirmation", "tool_name": bad, "args": {bad: list(HOSTILE.values())}, "prompt": HOSTILE["quotes"]},
        {"kind": "confirmation", "tool_name": "rm", "args": "not {json", "assignee": HOSTILE["override"], "note": bad},
        {"kind": "user_input", "tool_name": "book", "args": {}, "extra": {"fields": [bad, "a b", {"name": "day"}, 3]}},
        {"kind": "external_execution", "tool_name": "look", "args": [1], "status": "claimed", "claimed_by": bad},
        {"kind": "handoff", "prompt": "\n".join(HOSTILE.values()), "assignee": "ann", "extra": {"fields": "none"}},
        {"kind": "confirmation", "tool_name": "late", "args": {"n": MEGABYTE[:400]}, "expires_at": LATE},
        {"kind": "confirmation", "tool_name": "done", "status": "resolved", "approved": True, "resolved_by": bad},
        {"kind": "user_input", "tool_name": "no", "status": "resolved", "approved": False, "note": HOSTILE["nul"]},
        {"kind": "handoff", "status": "expired", "prompt": HOSTILE["lines"]},
    ]
    ids = [f"{i}{i}{i}{i}{i}{i}{i}{i}-0000" for i in range(len(asked))]
    ids[1] = "\n%kern 'x\x1b[1m</pre>"
    return [Requirement(requirement_id=name, **made, **fields) for name, fields in zip(ids, asked, strict=True)]


def hostile_paused_run() -> Run:
    """A run that waits for all of that."""
    bad = HOSTILE["script"]
    messages = [Message(role="user", content=bad, message_index=0)]
    place = {"run_id": "r2", "session_id": f"chat{bad}", "run_index": 2}
    return Run(**place, status="PAUSED", messages=messages, requirements=hostile_requirements())
