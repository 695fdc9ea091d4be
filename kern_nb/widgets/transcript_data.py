"""A transcript as data for a script: some runs at a time, long texts cut, each text to be had whole by its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from kern_nb.errors import MessageNotFound
from kern_nb.records import Message, Run, Session, ToolCall
from kern_nb.text import formatting, markdown
from kern_nb.text.formatting import BRANCH
from kern_nb.views import requirements
from kern_nb.views.transcript import (
    Conversation,
    answered_call,
    call_line,
    content,
    is_complete,
    is_markdown,
    run_facts,
)
from kern_nb.widgets import media

RUNS = 20
"""So many runs are read at a time."""

MESSAGES = 120
"""A part of a transcript ends with the message that reaches this."""

SHOWN = 1_200
"""So many characters of a text are shown at first."""

MOST = 1_000_000
"""So many of it are shown at all."""

_LINE = 160
_READ = 10 * SHOWN
"""So many characters are read of a text of which the beginning is shown."""

Part = Literal["content", "args", "result", "error"]


class Start(NamedTuple):
    """Where a part of a transcript begins: a run, and a place among what is said in it."""

    run_index: int = 0
    place: int = 0


def part(session: Session, runs: list[Run], start: Start) -> dict[str, Any]:
    """Runs from a place on, up to `MESSAGES` of them, and where the next part begins.

    Args:
        session: The session that is read, without its runs.
        runs: Its runs from ``start.run_index`` on, up to `RUNS` of them.
        start: The place.
    """
    told: list[dict[str, Any]] = []
    left = MESSAGES
    for run, said in _turns(session, runs):
        first = start.place if run.run_index == start.run_index else 0
        shown = said[first : first + left]
        ends = first + len(shown) == len(said)
        told.append(_run(session, run, runs, shown, first, ends=ends))
        left -= len(shown)
        if not ends:
            return {"runs": told, "next": Start(run.run_index or 0, first + len(shown))}
        if left <= 0:
            break
    last = runs[len(told) - 1].run_index if told else None
    more = len(told) < len(runs) or len(runs) == RUNS
    return {"runs": told, "next": Start(last + 1) if more and last is not None else None}


def whole(session: Session, run: Run, place: int, what: Part, call: int) -> dict[str, Any]:
    """A text in full.

    Raises:
        MessageNotFound: there is no such message or call.
    """
    said = _turns(session, [run])[0][1]
    try:
        text = _text(run, said, place, what, call)
    except IndexError:
        name = f"{session.session_id}/{run.run_index}"
        raise MessageNotFound(f"Run {name} has no such message any more.", f"See %kern show {name}.") from None
    told = {"text": formatting.escape_controls(text[:MOST]), "left": max(0, len(text) - MOST)}
    nodes = markdown.parse(text) if what == "content" and is_markdown(said[place]) else None
    return told if nodes is None else told | {"tree": nodes}


def held(session: Session, run: Run, place: int, call: int | None) -> Any:
    """The content of a message, or the result of one of its calls, as it is stored.

    Raises:
        MessageNotFound: there is no such message or call.
    """
    said = _turns(session, [run])[0][1]
    try:
        if call is None:
            return said[place].content
        return (_loose(run, said) if place < 0 else said[place].tool_calls)[call].result
    except IndexError:
        name = f"{session.session_id}/{run.run_index}"
        raise MessageNotFound(f"Run {name} has no such message any more.", f"See %kern show {name}.") from None


def _text(run: Run, said: list[Message], place: int, what: Part, call: int) -> str:
    if what == "error":
        return run.error or ""
    if what == "content":
        return content(said[place])
    found = _loose(run, said)[call] if place < 0 else said[place].tool_calls[call]
    return formatting.format_value(found.args if what == "args" else found.result)


def _turns(session: Session, runs: list[Run]) -> list[tuple[Run, list[Message]]]:
    return Conversation(session, runs).messages_by_run()


def _run(
    session: Session, run: Run, family: list[Run], said: list[Message], first: int, *, ends: bool
) -> dict[str, Any]:
    asked = next((content(message) for message in run.messages if message.role == "user"), "")
    told = {
        "index": run.run_index,
        "name": "Run" if run.run_index is None else f"Run {run.run_index}",
        "facts": [formatting.single_line(fact) for fact in run_facts(session, run)],
        "asked": formatting.truncate(asked, _LINE),
        "continued": first > 0,
        "messages": [_message(run, message, first + n) for n, message in enumerate(said)],
        "ends": [],
    }
    if ends:
        told["ends"] = list(_endings(session, run, family, _turns(session, [run])[0][1]))
    return told


def _message(run: Run, message: Message, place: int) -> dict[str, Any]:
    call = answered_call(run, message)
    index = message.message_index
    told: dict[str, Any] = {
        "place": place,
        "index": index,
        "at": "" if index is None else f"{run.run_index}.{index}",
        "role": formatting.truncate(message.role, 40),
        "pictures": media.found_in(message.content),
        "calls": [_call(one, n) for n, one in enumerate(message.tool_calls)],
    }
    if call is None:
        return told | (beginning if is_markdown(message) else _cut)(content(message))
    line = formatting.truncate(content(message), _LINE)  # the call has it in full
    return told | {
        "text": f"{BRANCH} {formatting.truncate(call.tool_name or 'tool', 60)}: {line}",
        "left": 0,
        "answer": True,
    }


def _call(call: ToolCall, number: int) -> dict[str, Any]:
    took = "" if call.duration_s is None else f" · {formatting.format_seconds(call.duration_s)}"
    told: dict[str, Any] = {
        "number": number,
        "line": formatting.single_line(call_line(call))
        + took
        + (" · called by the user" if call.caller == "user" else ""),
        "pictures": media.found_in(call.result),
    }
    for name, value in (("args", call.args), ("result", call.result)):
        told[name] = None if value is None else _cut(formatting.format_value(value))
    return told


def _cut(text: str, length: int = SHOWN) -> dict[str, Any]:
    """The beginning of a text, and how much of it is left."""
    shown = text if len(text) <= length + length // 4 else text[:length]
    return {"text": formatting.escape_controls(shown), "left": len(text) - len(shown)}


def beginning(text: str, length: int = SHOWN) -> dict[str, Any]:
    """The beginning of what a model said; where it is Markdown, as a ``parse`` of `render.markdown`, too."""
    nodes = None if len(text) > markdown.MAX_PARSED_LENGTH else markdown.parse(text[:_READ])
    if nodes is None:
        return _cut(text, length)
    shown, rest = markdown.split(nodes, length) if markdown.text_length(nodes) > length + length // 4 else (nodes, ())
    left = markdown.text_length(rest) + max(0, len(text) - _READ)
    return {"text": formatting.escape_controls(text[:length]), "left": left, "tree": shown}


def _endings(session: Session, run: Run, family: list[Run], said: list[Message]) -> Iterator[dict[str, Any]]:
    """What belongs to a run and to none of its messages."""
    loose = _loose(run, said)
    if loose:
        yield {"kind": "calls", "calls": [_call(call, n) for n, call in enumerate(loose)]}
    if run.error:
        yield {"kind": "error", **_cut(run.error)}
    lines = requirements.run_text(run, family) if is_complete(session, run) else []
    if lines:
        yield {"kind": "waiting", "text": "\n".join(formatting.single_line(line) for line in lines)}


def _loose(run: Run, said: list[Message]) -> list[ToolCall]:
    """Calls that no message made."""
    told = {id(call) for message in said for call in message.tool_calls}
    return [call for call in run.tool_calls if call.message_index is None and id(call) not in told]
