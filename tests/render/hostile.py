"""What a store may hold: text that would act, break out or break down if it were not escaped, cut and made visible."""

from __future__ import annotations

from kern_nb.records import Message, Run, Session, ToolCall, Usage

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
