"""A transcript as data for a script: some runs at a time, long texts truncated and available in full on request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from kern_nb.errors import MessageNotFound
from kern_nb.records import Message, Run, Session, ToolCall
from kern_nb.text import formatting, markdown
from kern_nb.text.formatting import BRANCH
from kern_nb.views import requirements, transcript
from kern_nb.widgets import media

MAX_RUNS = 20  # the most runs that are read at a time
MAX_MESSAGES = 120  # the most messages in a part of a transcript
PREVIEW_LENGTH = 1_200  # the most characters of a text at first
MAX_LENGTH = 1_000_000  # the most characters of a full text
_LINE = 160
_TOLERANCE = 0.25
_MAX_PARSED_PREVIEW = 10 * PREVIEW_LENGTH  # the most characters of a text that are parsed for its preview

Part = Literal["content", "args", "result", "error"]


class Start(NamedTuple):
    """Where a part of a transcript begins: a run, and an index into its messages."""

    run_index: int = 0
    position: int = 0


def transcript_part(session: Session, runs: list[Run], start: Start) -> dict[str, Any]:
    """Convert runs with up to `MAX_MESSAGES` messages, and the start of the next part.

    ``runs`` are those of the session from ``start.run_index`` on, up to `MAX_RUNS` of them.
    """
    items: list[dict[str, Any]] = []
    remaining = MAX_MESSAGES
    for run, messages in transcript.Conversation(session, runs).messages_by_run():
        first = start.position if run.run_index == start.run_index else 0
        part = messages[first : first + remaining]
        is_end = first + len(part) == len(messages)
        item = _run_header(session, run) | {"continued": first > 0}
        item["messages"] = [_message(run, message, position) for position, message in enumerate(part, first)]
        item["ends"] = list(_end(session, run, runs, messages)) if is_end else []
        items.append(item)
        remaining -= len(part)
        if not is_end:
            return {"runs": items, "next": Start(run.run_index or 0, first + len(part))}
        if remaining <= 0:
            break
    last = runs[len(items) - 1].run_index if items else None
    has_more = len(items) < len(runs) or len(runs) == MAX_RUNS
    return {"runs": items, "next": Start(last + 1) if has_more and last is not None else None}


def full_text(session: Session, run: Run, position: int, part: Part, number: int) -> dict[str, Any]:
    """Return a text of a message, or of its call with a number, in full; see `stored_content` for the position.

    Raises:
        MessageNotFound: there is no such message or call.
    """
    if part == "error":
        return clip(run.error or "", MAX_LENGTH)
    if part != "content":
        call = _call_at(session, run, position, number)
        return clip(formatting.format_value(call.args if part == "args" else call.result), MAX_LENGTH)
    message = _message_at(session, run, position)
    text = transcript.content(message)
    nodes = markdown.parse(text) if transcript.is_markdown(message) else None
    return clip(text, MAX_LENGTH) | ({} if nodes is None else {"tree": nodes})


def stored_content(session: Session, run: Run, position: int, number: int | None) -> Any:
    """Return the stored content of a message, or the result of its call with a number.

    Position -1 stands for the calls that belong to no message.

    Raises:
        MessageNotFound: there is no such message or call.
    """
    if number is None:
        return _message_at(session, run, position).content
    return _call_at(session, run, position, number).result


def _message_at(session: Session, run: Run, position: int) -> Message:
    try:
        return _messages_of(session, run)[position]
    except IndexError:
        raise _not_found(session, run) from None


def _call_at(session: Session, run: Run, position: int, number: int) -> ToolCall:
    messages = _messages_of(session, run)
    try:
        return (transcript.unattached_calls(run, messages) if position < 0 else messages[position].tool_calls)[number]
    except IndexError:
        raise _not_found(session, run) from None


def _messages_of(session: Session, run: Run) -> list[Message]:
    return transcript.Conversation(session, [run]).messages_by_run()[0][1]


def _not_found(session: Session, run: Run) -> MessageNotFound:
    ref = f"{session.session_id}/{run.run_index}"
    return MessageNotFound(f"Run {ref} no longer has this message.", f"See %kern show {ref}.")


def _run_header(session: Session, run: Run) -> dict[str, Any]:
    prompt = next((transcript.content(message) for message in run.messages if message.role == "user"), "")
    return {
        "index": run.run_index,
        "name": "Run" if run.run_index is None else f"Run {run.run_index}",
        "facts": [formatting.single_line(fact) for fact in transcript.run_facts(session, run)],
        "asked": formatting.truncate(prompt, _LINE),
    }


def _message(run: Run, message: Message, position: int) -> dict[str, Any]:
    index = message.message_index
    item: dict[str, Any] = {
        "position": position,
        "index": index,
        "at": "" if index is None else f"{run.run_index}.{index}",
        "role": formatting.truncate(message.role, 40),
        "pictures": media.describe_files(message.content),
        "calls": [_call(call, number) for number, call in enumerate(message.tool_calls)],
    }
    call = transcript.answered_call(run, message)
    if call is None:
        return item | (preview if transcript.is_markdown(message) else _clip)(transcript.content(message))
    result = formatting.truncate(transcript.content(message), _LINE)  # the call has it in full
    text = f"{BRANCH} {formatting.truncate(call.tool_name or 'tool', 60)}: {result}"
    return item | {"text": text, "left": 0, "answer": True}


def _call(call: ToolCall, number: int) -> dict[str, Any]:
    duration = "" if call.duration_s is None else f" · {formatting.format_seconds(call.duration_s)}"
    caller = " · called by the user" if call.caller == "user" else ""
    return {
        "number": number,
        "line": formatting.single_line(transcript.call_line(call)) + duration + caller,
        "pictures": media.describe_files(call.result),
        **clip_values(call, _TOLERANCE),
    }


def clip_values(call: ToolCall, tolerance: float = 0) -> dict[str, dict[str, Any] | None]:
    """Return the beginnings of the arguments and the result of a call."""
    return {
        name: None if value is None else clip(formatting.format_value(value), PREVIEW_LENGTH, tolerance=tolerance)
        for name, value in (("args", call.args), ("result", call.result))
    }


def clip(text: str, length: int, *, tolerance: float = 0) -> dict[str, Any]:
    """Return the beginning of a text, and the number of remaining characters; a few more are kept with a tolerance."""
    start = text if len(text) <= length + int(length * tolerance) else text[:length]
    return {"text": formatting.escape_controls(start), "left": len(text) - len(start)}


def _clip(text: str, length: int = PREVIEW_LENGTH) -> dict[str, Any]:
    return clip(text, length, tolerance=_TOLERANCE)


def preview(text: str, length: int = PREVIEW_LENGTH) -> dict[str, Any]:
    """Return the beginning of a model's text; Markdown also as a ``parse`` of `text.markdown`."""
    nodes = None if len(text) > markdown.MAX_PARSED_LENGTH else markdown.parse(text[:_MAX_PARSED_PREVIEW])
    if nodes is None:
        return _clip(text, length)
    is_long = markdown.text_length(nodes) > length + int(length * _TOLERANCE)
    head, tail = markdown.split(nodes, length) if is_long else (nodes, ())
    remaining = markdown.text_length(tail) + max(0, len(text) - _MAX_PARSED_PREVIEW)
    return {"text": formatting.escape_controls(text[:length]), "left": remaining, "tree": head}


def _end(session: Session, run: Run, runs: list[Run], messages: list[Message]) -> Iterator[dict[str, Any]]:
    """Yield what belongs to a run but to none of its messages."""
    if calls := transcript.unattached_calls(run, messages):
        yield {"kind": "calls", "calls": [_call(call, number) for number, call in enumerate(calls)]}
    if run.error:
        yield {"kind": "error", **_clip(run.error)}
    lines = requirements.run_text(run, runs) if transcript.is_complete(session, run) else []
    if lines:
        yield {"kind": "waiting", "text": "\n".join(map(formatting.single_line, lines))}
