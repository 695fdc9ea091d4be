"""What was run again, as a person reads it: what was done, what it waits for or failed with, and the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kern_nb.errors import KernError
from kern_nb.text import formatting
from kern_nb.text.formatting import BAD, GOOD
from kern_nb.text.html import Markup, container, isolate, tag
from kern_nb.views import requirements
from kern_nb.views.comparison import comparison_html

if TYPE_CHECKING:
    from kern_nb.operations.rerun import Rerun

_NAME = 80
_ERROR = 2_000
_MOST_PLACES = 8
_ARGS = 4_000


def rerun_text(rerun: Rerun) -> str:
    """The result as plain text."""
    last = rerun.runs[-1]
    asked = requirements.run_text(last, rerun.runs) if last.status == "PAUSED" else []
    try:
        compared = repr(rerun.comparison)
    except KernError as error:
        compared = _uncompared(error)
    return "\n".join([_headline(rerun), *_failed(rerun), *asked, *_notes(rerun), compared])


def rerun_html(rerun: Rerun) -> str:
    """The result as a whole output."""
    last = rerun.runs[-1]
    failed = [tag("p", isolate(line)) for line in _failed(rerun)]
    asked = requirements.run_markup(last, rerun.runs, _ARGS) if last.status == "PAUSED" else []
    rows = [tag("div", tag("p", tag("em", role)), body) for role, body in asked]
    notes = [tag("p", isolate(line)) for line in _notes(rerun)]
    try:
        compared = Markup(comparison_html(rerun.comparison))
    except KernError as error:
        compared = tag("p", isolate(_uncompared(error)))
    return container(tag("p", isolate(_headline(rerun))), *failed, *rows, *notes, compared)


def _headline(rerun: Rerun) -> str:
    """Which run again, as which, by whom and with what, and how it ended."""
    sign = {"COMPLETED": GOOD, "PAUSED": "…"}.get(rerun.status, BAD)
    first, last = rerun.runs[0], rerun.runs[-1]
    name = formatting.truncate(rerun.session_id, _NAME)
    several = f"{name}/{first.run_index} to {name}/{last.run_index} ({formatting.pluralize(len(rerun.runs), 'run')})"
    where = several if len(rerun.runs) > 1 else f"{name}/{first.run_index}"
    by = formatting.truncate(
        ", ".join([f"by {rerun.agent.name or rerun.agent.id}", *describe_changes(rerun.changed)]), 2 * _NAME
    )
    return f"{sign} {formatting.truncate(str(rerun.original), _NAME)} again as {where}, {by}: {rerun.status}"


def describe_changes(changed: Mapping[str, Any]) -> list[str]:
    """What differs by request, as people say it."""
    tools = changed.get("tools")
    words = {
        "model": f"with model {changed.get('model')}",
        "instructions": "with other instructions",
        "tools": f"with tools {', '.join(tools)}" if tools else "without tools",
        "message": "with another message",
    }
    return [said for name, said in words.items() if name in changed]


def _failed(rerun: Rerun) -> list[str]:
    """Why it did not end well."""
    return [formatting.truncate(f"{BAD} {rerun.error}", _ERROR)] if rerun.error else []


def _uncompared(error: KernError) -> str:
    return f"There is nothing to compare: {formatting.truncate(str(error), _ERROR)}"


def _notes(rerun: Rerun) -> list[str]:
    """How to go on, and what was not given."""
    notes = []
    place = f"{rerun.session_id}/{rerun.runs[-1].run_index}"
    if rerun.status != "COMPLETED":
        then = "Once that is answered" if rerun.status == "PAUSED" else "To try again"
        line = requirements.continue_command(place, rerun.agent.id)
        # An agent of the notebook lacks the changes.
        varied = rerun.changed.keys() - {"message"}
        notes.append(f"{then}: .continue_run() of this result" + ("" if varied else f", or {line}"))
    notes += _named("Not given before that", rerun.left)
    return notes + _named("Left out, as there is no input", rerun.skipped)


def _named(what: str, inputs: tuple[Any, ...]) -> list[str]:
    names = [formatting.truncate(str(one), _NAME) for one in inputs[:_MOST_PLACES]]
    more = len(inputs) - len(names)
    names += [f"and {formatting.format_count(more)} more"] if more else []
    return [f"{what}: {', '.join(names)}"] if inputs else []
