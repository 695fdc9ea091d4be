"""What a paused run waits for: what is asked, who is to answer, and the line that answers it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kern_nb.records import UNANSWERED, Requirement, Run
from kern_nb.text import formatting
from kern_nb.text.formatting import BAD, GOOD
from kern_nb.text.html import Markup, container, flowing, isolate, join, preformatted, render_text, tag
from kern_nb.text.tables import Column, Table

KEY = 8
"""The fewest characters of an id that stand for a requirement."""

_LINE = 300
_CALL = 120
_SAID = {"confirmation": "approved"}


@dataclass(frozen=True)
class InboxRow:
    """A row of the inbox.

    Attributes:
        requirement: What is waited for.
        key: What stands for it in a line: its id, or a unique prefix of it.
        run: The run that goes on once it is answered, as `chat/2`.
        agent: Whose run it is.
    """

    requirement: Requirement
    key: str
    run: str
    agent: str


def is_pending(requirement: Requirement) -> bool:
    """Whether an answer is still awaited: there is none, and it is not too late."""
    return requirement.status in UNANSWERED and not _is_late(requirement)


def _is_late(requirement: Requirement) -> bool:
    return requirement.expires_at is not None and requirement.expires_at <= datetime.now(UTC)


def field_names(requirement: Requirement) -> list[str]:
    """The arguments that a person is to fill in."""
    named = requirement.extra.get("fields")
    found = [one.get("name") if isinstance(one, Mapping) else one for one in named] if isinstance(named, list) else []
    return [one for one in found if isinstance(one, str)]


def shortest_prefixes(ids: Iterable[str], every: Iterable[str]) -> dict[str, str]:
    """For each id its shortest prefix of 8 or more characters that no other id begins with."""
    ordered = sorted({*every, *ids})
    places = {one: place for place, one in enumerate(ordered)}
    found = {}
    for one in ids:
        # Of all ids, those beside it in order share the longest beginning with it.
        beside = ordered[max(0, places[one] - 1) : places[one] + 2]
        shared = max((_shared(one, other) for other in beside if other != one), default=0)
        found[one] = one[: max(KEY, shared + 1)]
    return found


def _shared(one: str, other: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def call(requirement: Requirement, width: int = _CALL) -> str:
    """The tool call on one line: ``delete_file(path="x")``; empty where no tool waits."""
    if requirement.tool_name is None:
        return ""
    return f"{formatting.truncate(requirement.tool_name, 60)}({formatting.format_arguments(requirement.args, width)})"


def describe(requirement: Requirement, width: int = _CALL) -> str:
    """What is asked, in a few words: the call, else the question."""
    question = f" “{formatting.truncate(requirement.prompt, width)}”" if requirement.prompt else ""
    return call(requirement, width) or f"{requirement.kind}{question}"


def answer_commands(requirement: Requirement, key: str) -> list[str]:
    """What answers it, and what refuses it."""
    word = quote(key)
    if requirement.kind == "confirmation":
        return [f"%kern approve {word}", f"%kern reject {word}"]
    values = " ".join(f"{quote(name)}=VALUE" for name in field_names(requirement)) or "VALUE"
    return [f"%kern answer {word} {values}", f"%kern reject {word}"]


def quote(word: str) -> str:
    """A word as it is written in a line."""
    return shlex.quote(formatting.escape_controls(word).replace("\n", "␤"))


def describe_state(requirement: Requirement) -> str:
    """Who is at it, or what became of it; empty while it is anyone's."""
    if requirement.status == "expired" or (requirement.status in UNANSWERED and _is_late(requirement)):
        return f"{BAD} expired"
    if requirement.status in UNANSWERED:
        return f"with {requirement.claimed_by}" if requirement.claimed_by else ""
    said = _SAID.get(requirement.kind, "answered")
    by = f" by {requirement.resolved_by}" if requirement.resolved_by else ""
    return f"{BAD} refused{by}" if requirement.approved is False else f"{GOOD} {said}{by}"


def inbox_table(rows: Sequence[InboxRow], *, empty: str, store: str = "") -> Table:
    """The inbox.

    Args:
        rows: What there is, oldest first.
        empty: What is said where there is nothing.
        store: The store that has to be named in each line; empty where it is the one in use.
    """
    if not rows:
        return Table(empty, [], [], "A run waits here when it calls a tool that needs a person.")
    titles = ("id", "kind", "run", "agent", "tool call", "question", "for", "fields", "note", "state")
    wide = {"tool call": _CALL, "question": _CALL}
    columns = [*(Column(title, width=wide.get(title, 80)) for title in titles), Column("waiting since (UTC)")]
    waiting = [row.requirement for row in rows if is_pending(row.requirement)]
    caption = f"{formatting.pluralize(len(waiting), 'requirement')} to answer"
    done = len(rows) - len(waiting)
    caption += f", {done:,} answered or too late" if done else ""
    note = _verbs(waiting, store)
    return Table(caption, columns, [_cells(row) for row in rows], note).without_empty_columns()


def _cells(row: InboxRow) -> list[str]:
    one = row.requirement
    return [
        row.key,
        one.kind,
        row.run,
        row.agent,
        call(one),
        one.prompt or "",
        one.assignee or "",
        ", ".join(field_names(one)),
        one.note or "",
        describe_state(one),
        formatting.format_time(one.created_at),
    ]


def _verbs(waiting: Sequence[Requirement], store: str) -> str:
    """The lines that answer what there is."""
    if not waiting:
        return ""
    ends = f" --store {quote(store)}" if store else ""
    ways = ["%kern approve ID", "%kern reject ID"] if any(one.kind == "confirmation" for one in waiting) else []
    ways += ["%kern answer ID VALUE"] if any(one.kind != "confirmation" for one in waiting) else []
    ways += ["%kern handoff ID --to WHO"]
    look = f"%kern show RUN{ends} shows it in full."
    return f"Answer with {', '.join(way + ends for way in ways)}; then %kern continue RUN{ends}. {look}"


def continue_command(run: str, agent: str | None = None, store: str = "") -> str:
    """The line that goes on with a run."""
    with_agent = f" --agent {quote(agent)}" if agent else ""
    return f"%kern continue {quote(run)}{with_agent}" + (f" --store {quote(store)}" if store else "")


def run_markup(run: Run, family: Iterable[Run], limit: int) -> list[tuple[str, Markup]]:
    """What stands at the end of a paused run: a role and a body for each row."""
    rows = [(_role(one), _requirement(one, key, limit)) for one, key in _of_run(run)]
    line = _next(run, family)
    return [*rows, (line[0], tag("pre", line[1]))] if line else rows


def run_text(run: Run, family: Iterable[Run]) -> list[str]:
    """The same as lines of text."""
    text = []
    for one, key in _of_run(run):
        ways = " or ".join(answer_commands(one, key)) if is_pending(one) else describe_state(one)
        whom = f" from {formatting.truncate(one.assignee, 60)}" if one.assignee else ""
        text.append(f"{_role(one)} {describe(one)}{whom}: {formatting.truncate(ways, _LINE)}")
    line = _next(run, family)
    return [*text, ": ".join(line)] if line else text


def _of_run(run: Run) -> list[tuple[Requirement, str]]:
    """What a paused run waits or waited for, each with what stands for it in a line."""
    if run.status != "PAUSED":
        return []
    short = shortest_prefixes([one.requirement_id for one in run.requirements], ())
    return [(one, short[one.requirement_id]) for one in run.requirements]


def _next(run: Run, family: Iterable[Run]) -> tuple[str, str] | None:
    """What to type where a paused run itself asks nothing more. A team's run waits for its members' runs."""
    if run.status != "PAUSED" or run.parent_run_id is not None or any(map(is_pending, run.requirements)):
        return None
    ids, known = {run.run_id}, list(family)
    while more := {one.run_id for one in known if one.parent_run_id in ids} - ids:
        ids |= more
    asked_of_members = [one for r in known if r.run_id in ids - {run.run_id} for one in r.requirements]
    if not (asked_of_members or run.requirements) and run.run_type == "agent":
        return None  # another framework's, of which no more is known
    if any(map(is_pending, asked_of_members)) or not (asked_of_members or run.requirements):
        return "waits for its members", f"%kern inbox --session {quote(_reference(run))}"
    return "go on", continue_command(_reference(run))


def _reference(run: Run) -> str:
    return run.run_id if run.run_index is None else f"{run.session_id}/{run.run_index}"


def _role(requirement: Requirement) -> str:
    return "waits for" if is_pending(requirement) else "waited for"


def _requirement(one: Requirement, key: str, limit: int) -> Markup:
    """A requirement with its whole arguments: who approves should see what."""
    tool = call(one)
    facts = [tool and one.kind, one.assignee and f"for {one.assignee}", describe_state(one)]
    head = join(tag("strong", isolate(tool or one.kind)), *map(isolate, filter(None, facts)), by=" · ")
    args = None if one.args is None else preformatted(formatting.format_value(one.args), limit)
    note = tag("p", "note: ", flowing(formatting.truncate(one.note, _LINE))) if one.note else None
    named = field_names(one)
    to_fill = tag("p", "to fill in: ", isolate(formatting.truncate(", ".join(named), _LINE))) if named else None
    typed = tag("pre", "\n".join(answer_commands(one, key))) if is_pending(one) else None
    prompt = tag("div", render_text(one.prompt, limit)) if one.prompt else None
    return join(tag("p", head), prompt, args, to_fill, note, typed)


def sentences_text(said: Sequence[str]) -> str:
    """Sentences, a line each."""
    return "\n".join(formatting.escape_controls(one) for one in said)


def sentences_html(said: Sequence[str]) -> str:
    """Sentences, a paragraph each."""
    return container(*(tag("p", isolate(one)) for one in said))
