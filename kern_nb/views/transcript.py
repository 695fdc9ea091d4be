"""A conversation as a person reads it: its runs in order, the messages of each, tool calls folded beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from kern_nb.records import RESULT_ROLES, Message, Run, Session, ToolCall, is_parts, message_text, text_of
from kern_nb.text import formatting, markdown
from kern_nb.text.formatting import BAD, BRANCH, GOOD
from kern_nb.text.html import MAX_LENGTH, Markup, container, details, isolate, join, preformatted, render_text, tag
from kern_nb.text.tables import LEFT, Column, Table
from kern_nb.views import requirements

MOST_MESSAGES = 200
"""The most messages that are rendered: the first half and the last half of them."""

MOST_CHARACTERS = 400_000
"""Where the texts are longer than this together, each is cut shorter."""

BROKEN_OFF = "[partial: the answer ended here]"
"""Stands below an answer of which the end was never said."""

_SHORTEST = 1_000
_MOST_LINES = 40
_LINE = 200
_ID = 24
_SIGNS = {"completed": GOOD, "failed": f"{BAD} failed", "started": "… started", "unknown": "? unknown"}


@dataclass(frozen=True)
class Conversation:
    """What is shown of a session: some of its runs, the first of them from a message on."""

    session: Session
    runs: Sequence[Run]
    first_message: int = 0

    def turns(self) -> list[tuple[Run, list[Message]]]:
        """Every run with its messages that are shown."""
        shown = [(run, _messages(run)) for run in self.runs]
        if shown and self.first_message:
            run, messages = shown[0]
            shown[0] = (run, [m for m in messages if (m.message_index or 0) >= self.first_message])
        return shown


def session_html(session: Session) -> str:
    """A session: its conversation, or one line of a table where it was listed and not loaded."""
    if session.runs is None:
        return _card(session).html()
    return conversation_html(Conversation(session, session.runs))


def run_html(run: Run) -> str:
    """A run by itself."""
    session = Session(session_id=run.session_id or "", runs=[run])
    place = run.run_id if run.run_index is None else f"{run.session_id}/{run.run_index}"
    return container(tag("p", tag("strong", "Run ", isolate(place))), *_parts(Conversation(session, [run])))


def fork(session: Session) -> str:
    """What a branch inherits, in words; empty where it is none."""
    if session.parent_session_id is None:
        return ""
    run, message = session.fork_run_index, session.fork_message_index
    if run is None or run < 0:
        return f"{BRANCH} {session.parent_session_id}, none of its runs"
    upto = f"run {run}" if message is None else f"run {run}, message {message}"
    return f"{BRANCH} {session.parent_session_id}, up to {upto}"


def _title(session: Session) -> str:
    """The title in quotes, where there is one that says more than the id."""
    title = session.session_name
    return "" if title in (None, "", session.session_id) else f"“{formatting.truncate(str(title), _LINE)}”"


def _card(session: Session) -> Table:
    owner = session.agent_id or session.team_id or session.workflow_id or ""
    cells = {
        "session": session.session_id,
        "title": _title(session),
        "inherits": fork(session),
        session.session_type: owner,
        "user": session.user_id or "",
        "created (UTC)": formatting.format_time(session.created_at),
    }
    inherits = "No row was copied. " if session.parent_session_id else ""
    note = f"{inherits}%kern show {session.session_id} shows its runs."
    table = Table("Branch" if inherits else "Session", [Column(name) for name in cells], [list(cells.values())], note)
    return table.without_empty_columns()


def conversation_html(shown: Conversation) -> str:
    """A conversation as a whole output."""
    return container(tag("p", _head(shown)), *_parts(shown))


def conversation_parts(shown: Conversation) -> Iterator[Markup]:
    """A conversation's head and all of its runs, whatever their number, for a page that has room for them."""
    yield tag("p", _head(shown))
    for run, messages in shown.turns():
        yield _run(shown.session, run, messages, MAX_LENGTH)


def _parts(shown: Conversation) -> Iterator[Markup]:
    """The runs; of very many messages the middle ones are left out, with a word about it."""
    turns = shown.turns()
    total, half = sum(len(messages) for _, messages in turns), MOST_MESSAGES // 2
    hidden = range(half, total - half) if total > MOST_MESSAGES else range(0)
    every = [m for _, messages in turns for m in messages]
    limit = _limit([m for i, m in enumerate(every) if i not in hidden])
    left_out: list[Run] = []
    position = 0
    for run, messages in turns:
        numbered = list(enumerate(messages, position))
        position += len(messages)
        if not messages and not left_out:
            yield _run(shown.session, run, [], limit)
        for is_hidden, group in groupby(numbered, key=lambda one: one[0] in hidden):
            part = [message for _, message in group]
            if is_hidden:
                left_out += [run] * len(part)
                # What a run waits for is said all the same.
                if part[-1] is messages[-1] and requirements.run_text(run, shown.session.runs or ()):
                    yield _gap(shown.session, left_out)
                    left_out = []
                    yield _run(shown.session, run, [], limit)
                continue
            if left_out:
                yield _gap(shown.session, left_out)
                left_out = []
            yield _run(shown.session, run, part, limit, ends=part[-1] is messages[-1])


def _limit(messages: list[Message]) -> int:
    """How much of one text is shown, so that all of them together stay readable."""
    texts = [len(content(message)) for message in messages]
    texts += [
        len(formatting.format_value(value)) for m in messages for c in m.tool_calls for value in (c.args, c.result)
    ]
    return MAX_LENGTH if sum(texts) <= MOST_CHARACTERS else max(_SHORTEST, MOST_CHARACTERS // len(texts))


def _gap(session: Session, runs: list[Run]) -> Markup:
    middle = runs[len(runs) // 2]
    place = f"%kern show {session.session_id}/{middle.run_index}"
    return tag(
        "p", tag("em", f"… {formatting.pluralize(len(runs), 'message')} not shown here; {place} shows a run of them.")
    )


def _head(shown: Conversation) -> Markup:
    session = shown.session
    facts = [
        _title(session),
        session.agent_id and f"agent {session.agent_id}",
        session.team_id and f"team {session.team_id}",
        session.workflow_id and f"workflow {session.workflow_id}",
        session.user_id and f"user {session.user_id}",
        formatting.pluralize(len(shown.runs), "run"),
        fork(session),
    ]
    said = (isolate(formatting.truncate(fact, _LINE)) for fact in facts if fact)
    return join(tag("strong", "Session ", isolate(session.session_id)), *said, by=" · ")


def run_facts(session: Session, run: Run) -> list[str]:
    """What is said of a run above its messages."""
    calls = len(run.tool_calls)
    failed = sum(call.status == "failed" for call in run.tool_calls)
    usage = run.usage
    inherited = _is_inherited(session, run)
    cut = session.fork_message_index
    facts = [
        formatting.format_status(run.status) if is_whole(session, run) else f"cut after message {cut}",
        run.model,
        formatting.pluralize(len(run.messages), "message"),
        formatting.pluralize(calls, "tool call") + (f", {BAD} {failed} failed" if failed else "") if calls else None,
        usage and usage.total_tokens is not None and f"{formatting.format_count(usage.total_tokens)} tokens",
        run.duration_s is not None and formatting.format_seconds(run.duration_s),
        run.parent_run_id and f"member's run of {run.parent_run_id}",
        inherited and f"{BRANCH} inherited from {formatting.truncate(str(run.session_id), _ID)}",
    ]
    return [fact for fact in facts if fact]


def _is_inherited(session: Session, run: Run) -> bool:
    return run.session_id not in (None, session.session_id)


def is_whole(session: Session, run: Run) -> bool:
    """Whether a branch point leaves a run as it was: how it ended says nothing of its beginning."""
    is_last = _is_inherited(session, run) and run.run_index == session.fork_run_index
    return not is_last or session.fork_message_index is None


def _run(session: Session, run: Run, messages: list[Message], limit: int, *, ends: bool = True) -> Markup:
    name = "Run" if run.run_index is None else f"Run {run.run_index}"
    summary = join(tag("strong", name), *(isolate(fact) for fact in run_facts(session, run)), by=" · ")
    rows = [_row(_place(run, m), m.role, _message(run, m, limit)) for m in messages]
    if ends:
        rows += _endings(session, run, limit)
    head = tag("tr", *(tag("th", title, scope="col", align="left", style=LEFT) for title in ("#", "role", "content")))
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="kern-table kern-messages") if rows else None
    return details(summary, table, open_=True, class_="kern-run")


def _endings(session: Session, run: Run, limit: int) -> Iterator[Markup]:
    """What belongs to a run and to none of its messages."""
    told = {id(call) for message in run.messages for call in message.tool_calls}
    loose = [call for call in run.tool_calls if call.message_index is None and id(call) not in told]
    if loose:
        yield _row("", "tool calls", join(*(_call(call, limit) for call in loose)))
    if run.error:
        yield _row("", f"{BAD} error", render_text(run.error, limit))
    for role, body in requirements.run_markup(run, session.runs or (), limit) if is_whole(session, run) else ():
        yield _row("", role, body)


def _row(place: str, role: str, body: Markup) -> Markup:
    cells = (place, tag("strong", isolate(role)), body)
    return tag("tr", *(tag("td", cell, align="left", style=LEFT) for cell in cells))


def _place(run: Run, message: Message) -> str:
    return "" if message.message_index is None else f"{run.run_index}.{message.message_index}"


def _message(run: Run, message: Message, limit: int) -> Markup:
    call = answered(run, message)
    if call is not None:
        result = isolate(formatting.truncate(content(message), _LINE))
        return join(isolate(f"{BRANCH} {call.tool_name or 'tool'}: "), result)
    text = content(message)
    calls = [_call(call, limit) for call in message.tool_calls]
    said = markdown.render_markdown if is_markdown(message) else render_text
    return join(said(text, limit) if text else None, *calls)


def _call(call: ToolCall, limit: int) -> Markup:
    parts = [tag("p", tag("em", "called by the user"))] if call.caller == "user" else []
    for name, value in (("args", call.args), ("result", call.result)):
        if value is not None:
            parts += [tag("strong", name), preformatted(formatting.format_value(value), limit)]
    took = "" if call.duration_s is None else f" · {formatting.format_seconds(call.duration_s)}"
    return details(join(isolate(call_line(call)), took), *parts, class_="kern-call")


def call_line(call: ToolCall, width: int = 100) -> str:
    """A tool call on one line: ``✓ get_order(order_id="W1")``."""
    sign = _SIGNS.get(call.status or "", "")
    name, args = formatting.truncate(call.tool_name or "tool", 60), formatting.format_arguments(call.args, width)
    return f"{sign} {name}({args})".strip()


def answered(run: Run, message: Message) -> ToolCall | None:
    """The call that a tool's message answers, where the call shows the same result."""
    if message.role != "tool" or message.tool_call_id is None:
        return None
    calls = (call for call in run.tool_calls if call.tool_call_id == message.tool_call_id)
    return next((call for call in calls if call.result == message.content and call.message_index is not None), None)


def is_markdown(message: Message) -> bool:
    """Whether it was said by a model; what people and tools say is shown as they wrote it."""
    return message.role == "assistant" and text_of(message.content) is not None


def content(message: Message) -> str:
    """What a message says, as text; of an answer that broke off, with a word about that."""
    said = _content(message)
    return f"{said}\n{BROKEN_OFF}" if message.is_partial else said


def _content(message: Message) -> str:
    """The text of a message; parts that are no text are named, other values are JSON."""
    text = message_text(message)
    if message.role in RESULT_ROLES or not is_parts(message.content):
        return formatting.format_value(message.content) if text is None and message.content is not None else text or ""
    others = [
        str(part.get("type", "part")) for part in message.content if isinstance(part, dict) and "text" not in part
    ]
    return "\n".join([*([text] if text else []), *(f"[{other}]" for other in others)])


def _messages(run: Run) -> list[Message]:
    """The messages of a run; where only its input and output are known, those."""
    if run.messages:
        return run.messages
    ends: list[tuple[str, Any]] = [("user", run.input), ("assistant", run.output)]
    return [Message(role=role, content=value) for role, value in ends if value is not None]


def conversation_text(shown: Conversation) -> str:
    """A conversation as plain text, cut to what a screen or two hold."""
    session = shown.session
    facts = [_title(session), formatting.pluralize(len(shown.runs), "run"), fork(session)]
    text = [formatting.escape_controls(f"Session {session.session_id}: {', '.join(filter(None, facts))}")]
    lines: list[str] = []
    paused: list[str] = []
    for run, messages in shown.turns():
        lines.append(formatting.escape_controls(f"Run {run.run_index}: {', '.join(run_facts(session, run))}"))
        for message in messages:
            said = [content(message)] if content(message) else []
            said += [call_line(call, _LINE) for call in message.tool_calls]
            start = f"  {_place(run, message):>6} {formatting.truncate(message.role, 20)}: "
            lines += [start + formatting.truncate(line, _LINE) for line in said or [""]]
        ends = requirements.run_text(run, session.runs or ()) if is_whole(session, run) else []
        if len(lines) + len(ends) <= _MOST_LINES:
            lines += [f"  {line}" for line in ends]
        else:  # what a run waits for is said, however long the conversation is
            paused += [formatting.escape_controls(f"Run {run.run_index} {line}") for line in ends]
    text += lines[:_MOST_LINES]
    if len(lines) > _MOST_LINES:
        text.append(f"… {formatting.pluralize(len(lines) - _MOST_LINES, 'line')} more; .messages has every message.")
    text += paused
    return "\n".join(text)
