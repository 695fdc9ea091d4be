"""Transcripts: grouping by run, truncation, inheritance and requirements."""

from __future__ import annotations

import pytest
from markup import Markup as Read

from kern_nb.records import Message, Requirement, Run, Session, ToolCall
from kern_nb.views.transcript import MAX_CHARACTERS, MAX_MESSAGES, Conversation, conversation_html, conversation_text


def run(index: int, n: int, *, text: str = "text", **fields: object) -> Run:
    messages = [Message(role="user", content=f"{text} {index}.{i}", message_index=i) for i in range(n)]
    return Run(run_id=f"r{index}", session_id="chat", run_index=index, messages=messages, **fields)


def session(*runs: Run, **fields: object) -> Session:
    return Session(session_id="chat", runs=list(runs), **fields)


def read(shown: Session) -> Read:
    found = Read(shown._repr_html_())
    assert found.problems == []
    return found


def test_each_message_has_its_index():
    """The index is what `%kern branch chat/1.0` takes."""
    text = read(session(run(0, 2), run(1, 1))).text

    for place in ("0.0usertext 0.0", "0.1usertext 0.1", "1.0usertext 1.0"):
        assert place in text
    assert text.index("Run 0") < text.index("0.1user") < text.index("Run 1")


@pytest.mark.parametrize("sizes", [[500], [50] * 10, [1] * 400, [150, 0, 150], [10, 480, 10]])
def test_middle_messages_are_omitted_and_counted(sizes):
    """The first and last messages are shown, with one note about the omitted ones."""
    runs = [run(index, n) for index, n in enumerate(sizes)]
    found = read(session(*runs))
    total, last = sum(sizes), len(sizes) - 1

    assert found.text.count("usertext") == MAX_MESSAGES
    assert "0.0usertext" in found.text
    assert f"{last}.{sizes[-1] - 1}usertext" in found.text
    assert found.text.count("not shown; see") == 1
    assert f"… {total - MAX_MESSAGES} messages not shown; see for example %kern show chat/" in found.text


def test_truncated_run_shows_its_error_once():
    """The error is at its end."""
    text = read(session(run(0, 500, error="it broke"))).text

    assert text.count("it broke") == 1
    assert text.index("not shown; see") < text.index("it broke")


def test_many_long_texts_are_each_truncated_further():
    """The total stays readable, and each text states how much is missing."""
    html = session(run(0, 150, text="x" * 19_000))._repr_html_()

    assert len(html) < 2 * MAX_CHARACTERS
    assert "more characters not shown." in html


def test_call_is_folded_with_arguments_and_result():
    """Completed, failed, started and unknown calls differ by sign and word."""
    statuses = {
        "completed": "✓ f(",
        "failed": "✗ failed: f(",
        "started": "… started: f(",
        "unknown": "? outcome unknown: f(",
    }
    for status, start in statuses.items():
        call = ToolCall(
            tool_call_id="1", tool_name="f", args={"q": "x"}, result="found", status=status, message_index=0
        )
        message = Message(role="assistant", tool_calls=[call], message_index=0)
        found = read(session(Run(session_id="chat", run_index=0, messages=[message], tool_calls=[call])))

        assert found.elements.count("details") == 2
        assert f'{start}q="x")' in found.text
        assert "args" in found.text
        assert "result" in found.text
        assert ", ✗ 1 failed" in found.text if status == "failed" else "✗" not in found.text


def test_result_is_rendered_in_full_once():
    """It is next to its call; the tool's message repeats its beginning."""
    result = "word " * 200
    call = ToolCall(tool_call_id="1", tool_name="f", result=result, status="completed", message_index=0)
    messages = [
        Message(role="assistant", tool_calls=[call], message_index=0),
        Message(role="tool", tool_call_id="1", content=result, message_index=1),
    ]
    text = read(session(Run(session_id="chat", run_index=0, messages=messages, tool_calls=[call]))).text

    assert 200 <= text.count("word") < 260
    assert "↳ f: word word" in text


def test_calls_without_a_message_are_shown():
    """An importer may know a call but not its message."""
    loose = ToolCall(tool_call_id="1", tool_name="loose", status="completed")

    assert "✓ loose()" in read(session(run(0, 1, tool_calls=[loose]))).text


def test_run_without_messages_shows_input_and_output():
    """Some sources record only these."""
    text = read(session(Run(session_id="chat", run_index=0, input="ask", output={"answer": 42}))).text

    assert "userask" in text
    assert '"answer": 42' in text.replace("\u00a0", " ")


def test_inherited_runs_are_marked():
    """They have a sign and the parent's name; the session states up to which run."""
    own = run(1, 1)
    inherited = run(0, 1).model_copy(update={"session_id": "parent"})
    branch = session(inherited, own, parent_session_id="parent", fork_run_index=0, fork_message_index=3)
    text = read(branch).text

    assert text.count("↳ inherited from parent") == 1
    assert "Run 0 · cut after message 3 · " in text
    assert "Run 1 · COMPLETED · " in text
    assert "↳ parent, up to run 0, message 3" in text
    nothing = session(parent_session_id="parent", fork_run_index=-1)
    assert "↳ parent, none of its runs" in read(nothing).text


def test_plain_text_is_truncated():
    """Lines are limited in number and length, and missing ones are counted."""
    shown = session(run(0, 300, text="x" * 1000))
    text = conversation_text(Conversation(shown, shown.runs))

    assert len(text) < 12_000
    assert text.splitlines()[0] == "Session chat: 1 run"
    assert text.splitlines()[-1] == "… 261 more lines; see .messages."


def test_part_of_a_run_starts_at_a_message():
    """Earlier messages of the first run are omitted."""
    shown = session(run(0, 3), run(1, 3))
    html = conversation_html(Conversation(shown, shown.runs, first_message=2))

    assert "text 0.1" not in html
    assert "text 0.2" in html
    assert "text 1.0" in html


def test_records_have_a_short_repr():
    """Neither a session nor a run shows all its contents."""
    named = session(run(0, 3), session_data={"session_name": "A trip"}, parent_session_id="parent", fork_run_index=0)

    assert repr(named) == str(named) == "<Session chat 'A trip', 1 run, branch of parent>"
    assert repr(run(2, 3)) == str(run(2, 3)) == "<Run chat/2 COMPLETED, 3 messages, 0 tool calls>"
    assert repr(Session(session_id="x")) == "<Session x>"


def paused(*asked: Requirement, index: int = 0, **fields: object) -> Run:
    return run(index, 1, status="PAUSED", requirements=list(asked), **fields)


def ask(name: str = "0a000000-1", kind: str = "confirmation", **fields: object) -> Requirement:
    return Requirement(requirement_id=name, kind=kind, tool_name="rm", args={"path": "x"}, **fields)


def texts(shown: Session) -> list[str]:
    """The same transcript as markup and as plain text."""
    return [read(shown).text, conversation_text(Conversation(shown, shown.runs))]


def test_paused_run_ends_with_its_requirements():
    """The call, the assignee and the commands follow its messages."""
    asked = ask("0b000000-2", "user_input", extra={"fields": ["city", "a b"]})
    for text in texts(session(run(0, 1), paused(ask(assignee="ann"), asked, index=1))):
        for part in (
            'rm(path="x")',
            "ann",
            "%kern approve 0a000000",
            "%kern reject 0a000000",
            "%kern answer 0b000000 city=VALUE 'a b'=VALUE",
        ):
            assert text.index("text 1.0") < text.index(part)
        assert "%kern continue" not in text


def test_commands_use_unique_prefixes():
    """Prefixes of similar ids are long enough to be unique."""
    for text in texts(session(paused(ask("0a000000-12"), ask("0a000000-13"), ask("short")))):
        for key in ("0a000000-12", "0a000000-13", "short"):
            assert f"%kern approve {key}" in text


def test_resolved_run_shows_the_resume_command():
    """Answers are shown with the command; a finished run shows no requirements."""
    done = ask(status="resolved", approved=True, resolved_by="ann")
    late = ask("0b000000-2", status="expired")
    for text in texts(session(paused(done, late))):
        assert "✓ approved by ann" in text
        assert "✗ expired" in text
        assert "%kern continue chat/0" in text
        assert "%kern approve" not in text
    for text in texts(session(run(0, 1, requirements=[done]))):
        assert "approved" not in text
        assert "%kern" not in text


def test_team_run_waits_for_members():
    """Only the team's run shows where to look and, once its members are resolved, how to resume."""
    member = {"parent_run_id": "r0", "index": 1}
    team = paused(run_type="team")
    for text in texts(session(team, paused(ask(), **member))):
        assert "%kern inbox --session chat/0" in text
        assert text.count("%kern approve 0a000000") == 1
        assert "%kern continue" not in text
    for text in texts(session(team, paused(ask(status="resolved", approved=True), **member))):
        assert text.count("%kern continue chat/0") == 1
        assert "%kern continue chat/1" not in text
    assert "%kern inbox --session chat/0" in team._repr_html_()
    assert "%kern" not in paused()._repr_html_()


def test_requirements_are_shown_in_long_conversations():
    """Truncation drops them neither from the text nor from the markup."""
    for text in texts(session(run(0, 500), paused(ask(), index=1), run(2, 500))):
        assert text.count("%kern approve 0a000000") == 1
    assert texts(session(run(0, 500), paused(ask(), index=1)))[1].splitlines()[-1].startswith("Run 1 pending rm(")


def test_branch_of_a_truncated_paused_run_has_no_requirements():
    """Its status does not apply; a run that is inherited completely refers to the parent."""
    inherited = paused(ask(status="resolved", approved=False)).model_copy(update={"session_id": "parent"})
    cut = session(inherited, parent_session_id="parent", fork_run_index=0, fork_message_index=0)
    whole = session(inherited, parent_session_id="parent", fork_run_index=0)

    for text in texts(cut):
        assert "refused" not in text
        assert "%kern" not in text
    for text in texts(whole):
        assert "%kern continue parent/0" in text


def test_long_arguments_are_shown_for_approval():
    """The markup has as much as is allowed, with a count of the remainder; the text has the beginning."""
    asked = ask()
    asked.args = {"text": "x" * 1_000_000}
    shown = session(paused(asked))
    html, text = shown._repr_html_(), conversation_text(Conversation(shown, shown.runs))

    assert html.count("x" * 10_000) == 1
    assert "more characters not shown." in html
    assert len(html) < 40_000
    assert len(text) < 1_000


def test_single_run_shows_messages_and_requirements():
    """This is the HTML of a run; its plain form is one line."""
    found = Read(paused(ask())._repr_html_())

    assert found.problems == []
    assert found.text.startswith("Run chat/0")
    assert "text 0.0" in found.text
    assert "%kern approve 0a000000" in found.text
    assert repr(paused(ask())) == "<Run chat/0 PAUSED, 1 message, 0 tool calls>"
    assert Read(Run(run_id="new", input="ask", output="answer")._repr_html_()).text.startswith("Run new")
