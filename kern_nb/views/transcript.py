"""Show a conversation: its runs in order with their messages, and tool calls folded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from kern_nb.extra_keys import REWOUND_FROM
from kern_nb.records import RESULT_ROLES, Message, Run, Session, ToolCall, is_parts, message_text, text_of
from kern_nb.text import formatting, markdown
from kern_nb.text.formatting import BAD, BRANCH, GOOD
from kern_nb.text.html import MAX_LENGTH, Markup, container, details, isolate, join, preformatted, render_text, tag
from kern_nb.text.tables import Column, Table, text_row
from kern_nb.views import requirements

MAX_MESSAGES = 200  # the most messages that are rendered: the first half and the last half of them
MAX_CHARACTERS = 400_000  # if all texts together are longer, each is truncated further
PARTIAL = "[partial: the answer ended here]"
"""Follows an answer that is incomplete."""

_MAX_LINES = 40
_LINE = 200
_SIGNS = {"completed": GOOD, "failed": f"{BAD} failed:", "started": "… started:", "unknown": "? outcome unknown:"}


@dataclass(frozen=True)
class Conversation:
    """The part of a session that is shown: some of its runs, the first of them from a message on."""

    session: Session
    runs: Sequence[Run]
    first_message: int = 0

    def messages_by_run(self) -> list[tuple[Run, list[Message]]]:
        """Return each run with its messages that are shown; without messages, with its input and output."""
        result = []
        for n, run in enumerate(self.runs):
            ends = (("user", run.input), ("assistant", run.output))
            messages = run.messages or [Message(role=role, content=end) for role, end in ends if end is not None]
            if n == 0 and self.first_message:
                messages = [m for m in messages if (m.message_index or 0) >= self.first_message]
            result.append((run, messages))
        return result


def session_html(session: Session) -> str:
    """Render a session: its conversation, or a table row if its runs are not loaded."""
    if session.runs is None:
        return _session_table(session).html()
    return conversation_html(Conversation(session, session.runs))


def run_html(run: Run) -> str:
    """Render a single run."""
    session = Session(session_id=run.session_id or "", runs=[run])
    head = tag("p", tag("strong", "Run ", isolate(requirements.reference(run))))
    return container(head, *_parts(Conversation(session, [run])))


def fork(session: Session) -> str:
    """Describe what a branch inherits; empty if the session is not a branch."""
    if session.parent_session_id is None:
        return ""
    run, message = session.fork_run_index, session.fork_message_index
    if run is None or run < 0:
        return f"{BRANCH} {session.parent_session_id}, none of its runs"
    end = f"run {run}" if message is None else f"run {run}, message {message}"
    return f"{BRANCH} {session.parent_session_id}, up to {end}"


def _title(session: Session) -> str:
    """Return the title in quotes, if it differs from the id."""
    title = session.session_name
    return "" if title in (None, "", session.session_id) else f"“{formatting.truncate(str(title), _LINE)}”"


def _session_table(session: Session) -> Table:
    cells = {
        "session": session.session_id,
        "title": _title(session),
        "inherits": fork(session),
        session.session_type: session.agent_id or session.team_id or session.workflow_id or "",
        "user": session.user_id or "",
        "created (UTC)": formatting.format_time(session.created_at),
    }
    caption, detail = ("Branch", "No rows copied. ") if session.parent_session_id else ("Session", "")
    if left := (session.session_data or {}).get(REWOUND_FROM):
        caption = "Rewound session"
        is_first = left == session.parent_session_id
        detail = f"What followed is kept in {left}. " if is_first else "What followed is kept: %kern sessions. "
    note = f"{detail}%kern show {session.session_id} shows its runs."
    return Table(caption, [Column(name) for name in cells], [list(cells.values())], note).without_empty_columns()


def conversation_html(conversation: Conversation) -> str:
    """Render a conversation as a complete output."""
    return container(tag("p", _head(conversation)), *_parts(conversation))


def conversation_parts(conversation: Conversation) -> Iterator[Markup]:
    """Yield the head and all runs of a conversation, for a page without a limit."""
    yield tag("p", _head(conversation))
    for run, messages in conversation.messages_by_run():
        yield _run(conversation.session, run, messages, MAX_LENGTH)


def _parts(conversation: Conversation) -> Iterator[Markup]:
    """Yield the runs; of too many messages the middle ones are replaced by a note."""
    session, runs = conversation.session, conversation.messages_by_run()
    every = [message for _, messages in runs for message in messages]
    half = MAX_MESSAGES // 2
    hidden = range(half, len(every) - half) if len(every) > MAX_MESSAGES else range(0)
    limit = _limit([message for i, message in enumerate(every) if i not in hidden])
    skipped: list[Run] = []
    start = 0
    for run, messages in runs:
        numbered = list(enumerate(messages, start))
        start += len(messages)
        if not messages and not skipped:
            yield _run(session, run, [], limit)
        for is_hidden, group in groupby(numbered, key=lambda numbered: numbered[0] in hidden):
            part = [message for _, message in group]
            if is_hidden:
                skipped += [run] * len(part)
                # Requirements of a run are shown even if its messages are not.
                if part[-1] is messages[-1] and requirements.run_text(run, session.runs or ()):
                    yield _gap(session, skipped)
                    skipped = []
                    yield _run(session, run, [], limit)
                continue
            if skipped:
                yield _gap(session, skipped)
                skipped = []
            yield _run(session, run, part, limit, with_end=part[-1] is messages[-1])


def _limit(messages: list[Message]) -> int:
    """Return the most characters of one text, so that all of them together stay readable."""
    values = [value for m in messages for call in m.tool_calls for value in (call.args, call.result)]
    lengths = [*(len(content(message)) for message in messages), *map(len, map(formatting.format_value, values))]
    return MAX_LENGTH if sum(lengths) <= MAX_CHARACTERS else max(1_000, MAX_CHARACTERS // len(lengths))


def _gap(session: Session, runs: list[Run]) -> Markup:
    middle = runs[len(runs) // 2]
    command = f"%kern show {session.session_id}/{middle.run_index}"
    return tag("p", tag("em", f"… {formatting.pluralize(len(runs), 'message')} not shown; see for example {command}."))


def _head(conversation: Conversation) -> Markup:
    session = conversation.session
    n_runs = formatting.pluralize(len(conversation.runs), "run")
    facts = [_title(session), *owner_facts(session), n_runs, fork(session)]
    texts = (isolate(formatting.truncate(fact, _LINE)) for fact in facts if fact)
    return join(tag("strong", "Session ", isolate(session.session_id)), *texts, by=" · ")


def owner_facts(session: Session) -> list[str]:
    """Return the agent, team, workflow and user of a session."""
    names = ("agent", "team", "workflow", "user")
    return [f"{name} {value}" for name in names if (value := getattr(session, f"{name}_id"))]


def run_facts(session: Session, run: Run) -> list[str]:
    """Return the facts for the heading of a run."""
    is_cut = not is_complete(session, run)
    status = f"cut after message {session.fork_message_index}" if is_cut else formatting.format_status(run.status)
    n_failed = sum(call.status == "failed" for call in run.tool_calls)
    failed = f", {BAD} {n_failed} failed" if n_failed else ""
    tokens = run.usage and run.usage.total_tokens
    facts = [
        status,
        run.model,
        formatting.pluralize(len(run.messages), "message"),
        run.tool_calls and formatting.pluralize(len(run.tool_calls), "tool call") + failed,
        tokens is not None and f"{formatting.format_count(tokens)} tokens",
        run.duration_s is not None and formatting.format_seconds(run.duration_s),
        run.parent_run_id and f"member of {_owner(session, run)}",
        _is_inherited(session, run) and f"{BRANCH} inherited from {formatting.truncate(str(run.session_id), 24)}",
    ]
    return [fact for fact in facts if fact]


def _owner(session: Session, run: Run) -> str:
    indexes = (other.run_index for other in session.runs or () if other.run_id == run.parent_run_id)
    index = next(indexes, None)
    return f"run {run.parent_run_id if index is None else index}"


def _is_inherited(session: Session, run: Run) -> bool:
    return run.session_id not in (None, session.session_id)


def is_complete(session: Session, run: Run) -> bool:
    """Return whether a branch inherits a run completely; the status of a truncated run does not apply."""
    is_last = _is_inherited(session, run) and run.run_index == session.fork_run_index
    return not is_last or session.fork_message_index is None


def _run(session: Session, run: Run, messages: list[Message], limit: int, *, with_end: bool = True) -> Markup:
    name = "Run" if run.run_index is None else f"Run {run.run_index}"
    summary = join(tag("strong", name), *(isolate(fact) for fact in run_facts(session, run)), by=" · ")
    rows = [_row(_index(run, m), m.role, _message(run, m, limit)) for m in messages]
    if with_end:
        rows += _end(session, run, limit)
    head = tag("thead", text_row("#", "role", "content", is_head=True))
    table = tag("table", head, tag("tbody", *rows), class_="kern-table kern-messages") if rows else None
    return details(summary, table, open_=True, class_="kern-run")


def _end(session: Session, run: Run, limit: int) -> Iterator[Markup]:
    """Yield what belongs to a run but to none of its messages."""
    if calls := unattached_calls(run, run.messages):
        yield _row("", "tool calls", join(*(_call(call, limit) for call in calls)))
    if run.error:
        yield _row("", f"{BAD} error", render_text(run.error, limit))
    if is_complete(session, run):
        yield from (_row("", role, body) for role, body in requirements.run_markup(run, session.runs or (), limit))


def unattached_calls(run: Run, messages: Sequence[Message]) -> list[ToolCall]:
    """Return the tool calls of a run that none of the messages made."""
    attached = {id(call) for message in messages for call in message.tool_calls}
    return [call for call in run.tool_calls if call.message_index is None and id(call) not in attached]


def _row(index: str, role: str, body: Markup) -> Markup:
    return text_row(index, tag("strong", isolate(role)), body)


def _index(run: Run, message: Message) -> str:
    return "" if message.message_index is None else f"{run.run_index}.{message.message_index}"


def _message(run: Run, message: Message, limit: int) -> Markup:
    call = answered_call(run, message)
    if call is not None:
        result = isolate(formatting.truncate(content(message), _LINE))
        return join(isolate(f"{BRANCH} {call.tool_name or 'tool'}: "), result)
    text = content(message)
    calls = [_call(call, limit) for call in message.tool_calls]
    render = markdown.render_markdown if is_markdown(message) else render_text
    return join(render(text, limit) if text else None, *calls)


def _call(call: ToolCall, limit: int) -> Markup:
    parts = [tag("p", tag("em", "called by the user"))] if call.caller == "user" else []
    for name, value in (("args", call.args), ("result", call.result)):
        if value is not None:
            parts += [tag("strong", name), preformatted(formatting.format_value(value), limit)]
    duration = "" if call.duration_s is None else f" · {formatting.format_seconds(call.duration_s)}"
    return details(join(isolate(call_line(call)), duration), *parts, class_="kern-call")


def call_line(call: ToolCall, width: int = 100) -> str:
    """Format a tool call on one line: ``✓ get_order(order_id="W1")``."""
    sign = _SIGNS.get(call.status or "", "")
    name, args = formatting.truncate(call.tool_name or "tool", 60), formatting.format_arguments(call.args, width)
    return f"{sign} {name}({args})".strip()


def answered_call(run: Run, message: Message) -> ToolCall | None:
    """Return the call that a tool message answers, if the call has the same result."""
    if message.role != "tool" or message.tool_call_id is None:
        return None
    calls = (call for call in run.tool_calls if call.tool_call_id == message.tool_call_id)
    return next((call for call in calls if call.result == message.content and call.message_index is not None), None)


def is_markdown(message: Message) -> bool:
    """Return whether a message is from a model; others are shown unchanged."""
    return message.role == "assistant" and text_of(message.content) is not None


def content(message: Message) -> str:
    """Return the content of a message as text, with a note if it is partial; other parts are named, values are JSON."""
    text = message_text(message)
    if message.role not in RESULT_ROLES and is_parts(message.content):
        parts = [part for part in message.content if isinstance(part, dict) and "text" not in part]
        text = "\n".join([*([text] if text else []), *(f"[{part.get('type', 'part')}]" for part in parts)])
    elif text is None and message.content is not None:
        text = formatting.format_value(message.content)
    return f"{text or ''}\n{PARTIAL}" if message.is_partial else text or ""


def conversation_text(conversation: Conversation) -> str:
    """Render a conversation as plain text, truncated to a screen or two."""
    session = conversation.session
    facts = [_title(session), formatting.pluralize(len(conversation.runs), "run"), fork(session)]
    text = [formatting.escape_controls(f"Session {session.session_id}: {', '.join(filter(None, facts))}")]
    lines: list[str] = []
    pending: list[str] = []
    for run, messages in conversation.messages_by_run():
        lines.append(formatting.escape_controls(f"Run {run.run_index}: {', '.join(run_facts(session, run))}"))
        for message in messages:
            texts = [content(message)] if content(message) else []
            texts += [call_line(call, _LINE) for call in message.tool_calls]
            start = f"  {_index(run, message):>6} {formatting.truncate(message.role, 20)}: "
            lines += [start + formatting.truncate(line, _LINE) for line in texts or [""]]
        end = requirements.run_text(run, session.runs or ()) if is_complete(session, run) else []
        if len(lines) + len(end) <= _MAX_LINES:
            lines += [f"  {line}" for line in end]
        else:  # requirements are shown however long the conversation is
            pending += [formatting.escape_controls(f"Run {run.run_index} {line}") for line in end]
    text += lines[:_MAX_LINES]
    note = formatting.more_note(len(lines), _MAX_LINES, ".messages", "line")
    return "\n".join([*text, *([note] if note else []), *pending])
