"""Show a rerun: its runs, pending requirements or errors, and the comparison with the original."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from kern_nb.errors import KernError
from kern_nb.text import formatting
from kern_nb.text.formatting import BAD, GOOD
from kern_nb.text.html import Markup, container, isolate, tag
from kern_nb.views import requirements
from kern_nb.views.comparison import comparison_html

if TYPE_CHECKING:
    from kern_nb.analysis.compare import Comparison
    from kern_nb.db.references import Reference
    from kern_nb.records import Run

_NAME = 80
_ERROR = 2_000
_MAX_INPUTS = 8


class Rerun(Protocol):
    """What is shown of `kern_nb.operations.rerun.Rerun`."""

    original: Reference
    session_id: str
    runs: list[Run]
    agent: Any
    status: str
    error: str | None
    changed: dict[str, Any]
    left: Sequence[object]
    skipped: Sequence[object]
    comparison: Comparison


def rerun_text(rerun: Rerun) -> str:
    """Render a rerun as plain text."""
    last = rerun.runs[-1]
    pending = requirements.run_text(last, rerun.runs) if last.status == "PAUSED" else []
    try:
        comparison = repr(rerun.comparison)
    except KernError as error:
        comparison = _no_comparison(error)
    return "\n".join([*_head(rerun), *pending, *_notes(rerun), comparison])


def rerun_html(rerun: Rerun) -> str:
    """Render a rerun as a complete output."""
    last = rerun.runs[-1]
    pending = requirements.run_markup(last, rerun.runs, 4_000) if last.status == "PAUSED" else []
    try:
        comparison = Markup(comparison_html(rerun.comparison))
    except KernError as error:
        comparison = tag("p", isolate(_no_comparison(error)))
    return container(
        *(tag("p", isolate(line)) for line in _head(rerun)),
        *(tag("div", tag("p", tag("em", role)), body) for role, body in pending),
        *(tag("p", isolate(line)) for line in _notes(rerun)),
        comparison,
    )


def _head(rerun: Rerun) -> Iterator[str]:
    """State what was rerun as which runs, by which agent, with which changes, the final status, and the error."""
    sign = {"COMPLETED": GOOD, "PAUSED": "…"}.get(rerun.status, BAD)
    first, last = rerun.runs[0], rerun.runs[-1]
    name = formatting.truncate(rerun.session_id, _NAME)
    runs = f"{name}/{first.run_index}"
    if len(rerun.runs) > 1:
        runs += f" to {name}/{last.run_index} ({formatting.pluralize(len(rerun.runs), 'run')})"
    by = ", ".join([f"by {rerun.agent.name or rerun.agent.id}", *describe_changes(rerun.changed)])
    original = formatting.truncate(str(rerun.original), _NAME)
    yield f"{sign} Rerun of {original} as {runs}, {formatting.truncate(by, 2 * _NAME)}: {rerun.status}"
    if rerun.error:
        yield formatting.truncate(f"{BAD} {rerun.error}", _ERROR)


def describe_changes(changed: Mapping[str, Any]) -> list[str]:
    """Describe each requested change."""
    tools = changed.get("tools")
    texts = {
        "model": f"with model {changed.get('model')}",
        "instructions": "with new instructions",
        "tools": f"with tools {', '.join(tools)}" if tools else "without tools",
        "message": "with a new message",
    }
    return [text for name, text in texts.items() if name in changed]


def _no_comparison(error: KernError) -> str:
    return f"No comparison: {formatting.truncate(str(error), _ERROR)}"


def _notes(rerun: Rerun) -> Iterator[str]:
    """Explain how to resume or retry, and list inputs that did not run."""
    if rerun.status != "COMPLETED":
        purpose = "To resume once it is answered" if rerun.status == "PAUSED" else "To retry"
        command = requirements.continue_command(f"{rerun.session_id}/{rerun.runs[-1].run_index}", rerun.agent.id)
        # An agent of the notebook lacks the changes.
        is_changed = rerun.changed.keys() - {"message"}
        yield f"{purpose}: call .continue_run() on this result" + ("" if is_changed else f", or {command}")
    for title, inputs in (("Inputs not run", rerun.left), ("Skipped, no input", rerun.skipped)):
        names = [formatting.truncate(str(value), _NAME) for value in inputs[:_MAX_INPUTS]]
        n_more = len(inputs) - len(names)
        names += [f"and {formatting.format_count(n_more)} more"] if n_more else []
        if names:
            yield f"{title}: {', '.join(names)}"
