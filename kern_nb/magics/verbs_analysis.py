"""What each verb of analysis calls: the parsed line in, one public call, its value out."""

from __future__ import annotations

import csv
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from kern_nb.analysis.compare import Comparison
    from kern_nb.analysis.digest import Digest
    from kern_nb.analysis.groups import GroupComparison
    from kern_nb.analysis.plots import Plot
    from kern_nb.operations.rerun import Rerun
    from kern_nb.operations.summarize import Summaries
    from kern_nb.records import SessionSummary
    from kern_nb.widgets.comparison import ComparisonView


def compare(args: Namespace) -> Comparison | ComparisonView | GroupComparison:
    """Sessions or runs beside the first; or groups."""
    from kern_nb.analysis.compare import compare
    from kern_nb.analysis.groups import compare_groups

    of_groups = {"--key": args.key, "--score": args.score, "--groups": args.groups, "--where": args.where}
    if args.by is None:
        for flag, value in of_groups.items():
            if value:
                raise BadUsage(
                    f"{flag} is about groups.", f"Say what tells them apart: %kern compare --by model {flag} …"
                )
        first, others = args.ref[:1], args.ref[1:]
        found = compare(*first, *((ref, args.to_store) if args.to_store else ref for ref in others), store=args.store)
        return _view(found) if args.widget else found
    if args.ref or args.to_store or args.widget:
        other = args.ref[0] if args.ref else "--to-store" if args.to_store else "--widget"
        raise BadUsage(f"--by compares groups of all sessions, so that {other} has no place.", "Narrow with --where.")
    chosen: dict[str, Any] = {"key": args.key and _several(args.key), "score": args.score}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    groups = None if args.groups is None else _split(args.groups)
    return compare_groups(args.store, by=_several(args.by), groups=groups, where=_where(args.where), **chosen)


def _view(comparison: Comparison) -> ComparisonView:
    from kern_nb.widgets.comparison import ComparisonView

    return ComparisonView(comparison)


def _several(text: str) -> str | list[str]:
    """A name, or several with commas between them."""
    names = _split(text)
    return names[0] if len(names) == 1 else names


def _split(text: str) -> list[str]:
    """Names with commas between them; one that has a comma in it stands in double quotes: ``'"a,b",c'``.

    Raises:
        BadUsage: a quote is not closed, or there is no name between two commas.
    """
    try:
        names = next(csv.reader([text], skipinitialspace=True, strict=True), [])
    except csv.Error:
        names = []
    if not names or not all(names):
        raise BadUsage(f"{text!r} is no list of names.", "Put commas between them, and quotes around one with a comma.")
    return names


def summarize(args: Namespace) -> Digest | Summaries | SessionSummary:
    """A digest, or a model's summary."""
    from kern_nb.operations.summarize import summarize

    made: Digest | Summaries | SessionSummary = summarize(
        *args.ref, where=_where(args.where) or None, model=args.model, store=args.store
    )
    return made


def rerun(args: Namespace) -> Rerun:
    """A branch, run again, beside the original."""
    from kern_nb.operations import agent_registry
    from kern_nb.operations.rerun import rerun

    agent = None if args.agent is None else agent_registry.find(args.agent)
    changes = {name: getattr(args, name) for name in ("message", "model", "instructions", "name")}
    return rerun(args.ref, agent, onward=args.onward, store=args.store, **changes)


def plot(args: Namespace) -> Plot:
    """A plot."""
    from kern_nb.analysis.plots import plot

    return plot(args.ref, kind=args.kind, store=args.store)


def _where(words: list[str]) -> dict[str, str]:
    """What `--where` says: names and values.

    Raises:
        BadUsage: it says none.
    """
    for word in words:
        if "=" not in word:
            raise BadUsage(f"--where {word!r} says no value.", "For example: --where domain=airline")
    names = [word.split("=", 1)[0] for word in words]
    for name in names:
        if names.count(name) > 1:
            hint = "A session has one value; leave one of them out."
            raise BadUsage(f"--where is given twice for {name!r}.", hint)
    return dict(word.split("=", 1) for word in words)
