"""Verbs of analysis: compare, summarize, rerun, plot, cost."""

from __future__ import annotations

import csv
from argparse import Namespace
from typing import Any

import kern_nb
from kern_nb.errors import BadUsage
from kern_nb.magics.verb import PLOTS, STORE, arg, choice, switch, verb
from kern_nb.operations import agent_registry

_MODEL = "The model, for example openai:gpt-5.2"
_WHERE = arg("--where", "NAME=VALUE", "Only sessions with this value; repeatable.", action="append", default=[])


def _compare(args: Namespace) -> object:
    if args.by is not None:
        return _compare_groups(args)
    group_options = {"--key": args.key, "--score": args.score, "--groups": args.groups, "--where": args.where}
    for flag, value in group_options.items():
        if value:
            raise BadUsage(f"{flag} needs --by.", f"Name the column of the groups: %kern compare --by model {flag} …")
    first, others = args.ref[:1], args.ref[1:]
    others = ((ref, args.to_store) if args.to_store else ref for ref in others)
    comparison = kern_nb.compare(*first, *others, store=args.store)
    if not args.widget:
        return comparison
    from kern_nb.widgets.comparison import ComparisonView

    return ComparisonView(comparison)


def _compare_groups(args: Namespace) -> object:
    if args.ref or args.to_store or args.widget:
        conflict = args.ref[0] if args.ref else "--to-store" if args.to_store else "--widget"
        raise BadUsage(f"--by compares groups of all sessions and does not support {conflict}.", "Filter with --where.")
    options: dict[str, Any] = {"key": args.key and _name_or_names(args.key), "score": args.score}
    options = {name: value for name, value in options.items() if value is not None}
    groups = None if args.groups is None else _split_names(args.groups)
    where = _parse_where(args.where)
    return kern_nb.compare_groups(args.store, by=_name_or_names(args.by), groups=groups, where=where, **options)


def _name_or_names(text: str) -> str | list[str]:
    names = _split_names(text)
    return names[0] if len(names) == 1 else names


def _split_names(text: str) -> list[str]:
    """Split names at commas; a name with a comma in it is in double quotes: ``'"a,b",c'``."""
    try:
        names = next(csv.reader([text], skipinitialspace=True, strict=True), [])
    except csv.Error:
        names = []
    if not names or not all(names):
        hint = "Separate names by commas, and quote a name that has one."
        raise BadUsage(f"Expected a list of names, got {text!r}.", hint)
    return names


def _cost(args: Namespace) -> object:
    costs = kern_nb.cost(
        args.store,
        by=_split_names(args.by),
        where=_parse_where(args.where) or None,
        since=args.since,
        until=args.until,
        save=args.save,
    )
    return costs.plot() if args.plot else costs


def _rerun(args: Namespace) -> object:
    agent = None if args.agent is None else agent_registry.find(args.agent)
    changes = {name: getattr(args, name) for name in ("message", "model", "instructions", "name")}
    return kern_nb.rerun(args.ref, agent, onward=args.onward, store=args.store, **changes)


def _parse_where(words: list[str]) -> dict[str, str]:
    conditions: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise BadUsage(f"--where must be NAME=VALUE, got {word!r}.", "For example: --where domain=airline")
        if name in conditions:
            raise BadUsage(f"--where has two values for {name!r}.", "A session has one value; remove one of them.")
        conditions[name] = value
    return conditions


VERBS = (
    verb(
        "compare",
        "Compare sessions or runs with the first of them, or groups of sessions paired by a key.",
        _compare,
        arg("ref", "REF", "Two or more sessions or runs, the baseline first.", "references", nargs="*"),
        arg("--by", "NAME", "Compare groups by this column or key, for example model; several as A,B.", "group_names"),
        arg("--key", "NAME", "The key that pairs sessions of two groups; by default task_id.", "group_names"),
        arg("--score", "NAME", "The score of the groups; by default reward."),
        arg("--groups", "A,B", "The groups, the baseline first; by default all. '\"a,b\",c' is two groups."),
        _WHERE,
        STORE,
        arg("--to-store", "NAME", "The store of all but the first, if it is another.", "stores"),
        switch("--widget", "Show sessions or runs in an interactive view."),
        example="%kern compare conversation_123 what-if",
        python='kern_nb.compare("conversation_123", "what-if")',
        details="The comparison of sessions or runs has `.metrics`, `.turns`, `.tool_calls` and `.divergence`; that of"
        " groups (`%kern compare --by model --key task_id`, in Python `kern_nb.compare_groups`) has `.groups`, `.pairs`"
        " and `.metrics`. A name is a column, or a key of the metadata or of the session state. Both have `.plot()`."
        " In Python, the widget is `kern_nb.widgets.comparison.view(...)`.",
    ),
    verb(
        "summarize",
        "Digest sessions or runs, or let a model summarize them.",
        lambda args: kern_nb.summarize(
            *args.ref, where=_parse_where(args.where) or None, model=args.model, store=args.store
        ),
        arg("ref", "REF", "Sessions or runs.", "references", nargs="*"),
        _WHERE,
        arg("--model", "MODEL", f"{_MODEL}; without one, a computed digest."),
        STORE,
        example="%kern summarize conversation_123 --model openai:gpt-5.2",
        python='kern_nb.summarize("conversation_123", model="openai:gpt-5.2")',
        details="A model's summary of a session is stored with it; the next one is made from it and the runs since"
        " then.",
    ),
    verb(
        "rerun",
        "Branch before a run, run it again with an agent, and compare the result with the original.",
        _rerun,
        arg("ref", "REF", "The run; or a session, to rerun all of its runs.", "references"),
        arg(
            "--agent",
            "AGENT",
            "An agent, team or workflow: its variable, id or name; by default one made from the record.",
            "agents",
        ),
        arg("--message", "TEXT", "The input, instead of the run's own."),
        arg("--model", "MODEL", f"{_MODEL}; by default the agent's."),
        arg("--instructions", "TEXT", "The instructions, instead of the agent's."),
        arg("--as", "NAME", "The branch's id and title; by default a generated id.", dest="name"),
        switch("--onward", "Rerun the later runs, too."),
        STORE,
        example='%kern rerun conversation_123/2 --agent clerk --message "Where is order 1044?" --as what-if',
        python='kern_nb.rerun("conversation_123/2", clerk, message="Where is order 1044?", name="what-if")',
        details="The original does not change. The result has `.session`, `.runs` and `.comparison`.",
    ),
    verb(
        "plot",
        "Plot tokens, cost and time over runs, the use of tools, or the tree of branches.",
        lambda args: kern_nb.plot(args.ref, kind=args.kind, store=args.store),
        arg("ref", "REF", "A session; by default the newest ones.", "references", nargs="?"),
        arg(
            "--kind", "|".join(PLOTS), "The kind of plot; by default runs.", "plots", type=choice("kind of plot", PLOTS)
        ),
        STORE,
        example="%kern plot conversation_123 --kind tree",
        python='kern_nb.plot("conversation_123", kind="tree")',
        details="The result has `.df`, the data, and `.save(path)`.",
    ),
    verb(
        "cost",
        "Sum what was spent, as stated by the source or estimated from list prices.",
        _cost,
        arg(
            "--by",
            "NAME,NAME",
            "model, day, week, month, a column or a key of the metadata.",
            "cost_groups",
            default="model",
        ),
        _WHERE,
        arg("--since", "TIME", "Only sessions created then or later; 2026-11-20 or 2026-11-20T14:30, in UTC."),
        arg("--until", "TIME", "Only sessions created before this time."),
        switch("--plot", "Plot it."),
        switch("--save", "Store the estimates: frames then have them, with `cost_source` estimated."),
        STORE,
        example="%kern cost --by model,day",
        python='kern_nb.cost(by=["model", "day"])',
        details="A stated cost stays as it is. Estimates are in US dollars, by kind of token, from the prices of"
        " genai-prices at the time of the response; without a listed price a cost is unknown, never 0. The result has"
        " `.df` and `.plot()`.",
    ),
)
