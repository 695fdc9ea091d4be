"""Show what a paused run waits for: the requirement, its assignee, and the commands that resolve it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kern_nb.extra_keys import INPUT_FIELDS
from kern_nb.records import UNRESOLVED_STATUSES, Requirement, Run
from kern_nb.text import formatting
from kern_nb.text.formatting import BAD, GOOD
from kern_nb.text.html import Markup, container, isolate, join, preformatted, preserve_whitespace, render_text, tag
from kern_nb.text.tables import Column, Table
from kern_nb.views import feedback

MIN_PREFIX = 8  # the fewest characters of an id that refer to a requirement
_LINE = 300
_CALL = 120


@dataclass(frozen=True)
class InboxRow:
    """A requirement in the inbox; ``key`` is its id, or a unique prefix of it, for use in a command.

    ``run`` is the run that resumes once the requirement is resolved, as `chat/2`, and ``agent`` the agent of that run.
    """

    requirement: Requirement
    key: str
    run: str
    agent: str


def is_pending(requirement: Requirement) -> bool:
    """Return whether the requirement can still be resolved: it has no answer and has not expired."""
    is_expired = requirement.expires_at is not None and requirement.expires_at <= datetime.now(UTC)
    return requirement.status in UNRESOLVED_STATUSES and not is_expired


def field_names(requirement: Requirement) -> list[str]:
    """Return the names of the arguments that a person fills in."""
    values = requirement.extra.get(INPUT_FIELDS)
    if not isinstance(values, list):
        return []
    names = (value.get("name") if isinstance(value, Mapping) else value for value in values)
    return [name for name in names if isinstance(name, str)]


def shortest_prefixes(ids: Iterable[str], all_ids: Iterable[str]) -> dict[str, str]:
    """Map each id to its shortest prefix, of 8 or more characters, that no other id begins with."""
    ids = list(ids)
    ordered = sorted({*all_ids, *ids})
    index = {id_: n for n, id_ in enumerate(ordered)}
    prefixes = {}
    for id_ in ids:
        # Among all ids the neighbours in order share the longest prefix with it.
        neighbours = ordered[max(0, index[id_] - 1) : index[id_] + 2]
        common = max((formatting.common_prefix_length(id_, other) for other in neighbours if other != id_), default=0)
        prefixes[id_] = id_[: max(MIN_PREFIX, common + 1)]
    return prefixes


def call(requirement: Requirement, width: int = _CALL) -> str:
    """Format the tool call on one line, ``delete_file(path="x")``; empty without a tool."""
    if requirement.tool_name is None:
        return ""
    arguments = formatting.format_arguments(requirement.args, width)
    return f"{formatting.truncate(requirement.tool_name, 60)}({arguments})"


def describe(requirement: Requirement, width: int = _CALL) -> str:
    """Describe a requirement in a few words: its call, else its question."""
    prompt = questions_line(requirement) or requirement.prompt
    question = f" “{formatting.truncate(prompt, width)}”" if prompt else ""
    text = "" if feedback.is_question_args(requirement) else call(requirement, width)
    return text or f"{requirement.kind}{question}"


def questions_line(requirement: Requirement) -> str:
    """Return the questions of user feedback on one line; empty for another requirement."""
    return " ".join(question.text for question in feedback.questions_of(requirement))


def answer_commands(requirement: Requirement, key: str) -> list[str]:
    """Return the command that answers a requirement and the one that rejects it."""
    key = quote(key)
    values = " ".join(f"{quote(name)}=VALUE" for name in field_names(requirement)) or "VALUE"
    if questions := feedback.questions_of(requirement):
        several = [f"{quote(question.name)}=CHOICE" for question in questions]
        values = "CHOICE" if len(questions) == 1 else " ".join(several)
    answer = f"%kern approve {key}" if requirement.kind == "confirmation" else f"%kern answer {key} {values}"
    return [answer, f"%kern reject {key}"]


def quote(word: str) -> str:
    """Quote a word for a command."""
    return shlex.quote(formatting.escape_controls(word).replace("\n", "␤"))


def describe_state(requirement: Requirement) -> str:
    """Describe who has claimed or resolved a requirement; empty while it is unclaimed."""
    if is_pending(requirement):
        return f"claimed by {requirement.claimed_by}" if requirement.claimed_by else ""
    if requirement.status in ("expired", *UNRESOLVED_STATUSES):
        return f"{BAD} expired"
    by = f" by {requirement.resolved_by}" if requirement.resolved_by else ""
    if requirement.approved is False:
        return f"{BAD} rejected{by}"
    return f"{GOOD} {'approved' if requirement.kind == 'confirmation' else 'answered'}{by}"


def inbox_table(rows: Sequence[InboxRow], *, empty: str, store: str = "") -> Table:
    """Build the table of the inbox; ``empty`` is its caption without rows.

    Commands name the ``store``, which is empty for the current one.
    """
    if not rows:
        return Table(empty, [], [], "Runs appear here when a tool call needs a person.")
    titles = ("id", "kind", "run", "agent", "tool call", "question", "for", "fields", "note", "state")
    wide = {"tool call": _CALL, "question": _CALL}
    columns = [*(Column(title, width=wide.get(title, 80)) for title in titles), Column("pending since (UTC)")]
    pending = [row.requirement for row in rows if is_pending(row.requirement)]
    caption = formatting.pluralize(len(pending), "pending requirement")
    n_done = len(rows) - len(pending)
    caption += f", {n_done:,} resolved or expired" if n_done else ""
    return Table(caption, columns, [_cells(row) for row in rows], _usage(pending, store)).without_empty_columns()


def _cells(row: InboxRow) -> list[str]:
    requirement = row.requirement
    return [
        row.key,
        requirement.kind,
        row.run,
        row.agent,
        _call_name(requirement),
        _question_cell(requirement),
        requirement.assignee or "",
        ", ".join(field_names(requirement)),
        requirement.note or "",
        describe_state(requirement),
        formatting.format_time(requirement.created_at),
    ]


def _call_name(requirement: Requirement) -> str:
    """Return the tool call; without its arguments if these are the questions, which are shown themselves."""
    if feedback.is_question_args(requirement):
        return formatting.truncate(requirement.tool_name or "", 60)
    return call(requirement)


def _question_cell(requirement: Requirement) -> str:
    questions = feedback.questions_of(requirement)
    texts = [f"{question.text} [{question.numbered}]" if question.options else question.text for question in questions]
    return " ".join(texts) or requirement.prompt or ""


def _usage(pending: Sequence[Requirement], store: str) -> str:
    if not pending:
        return ""
    option = f" --store {quote(store)}" if store else ""
    confirmations = [requirement.kind == "confirmation" for requirement in pending]
    commands = ["%kern approve ID", "%kern reject ID"] if any(confirmations) else []
    commands += [] if all(confirmations) else ["%kern answer ID VALUE"]
    answer = ", ".join(command + option for command in [*commands, "%kern handoff ID --to WHO"])
    return f"Answer with {answer}; resume with %kern continue RUN{option}. Details: %kern show RUN{option}"


def continue_command(run: str, agent: str | None = None, store: str = "") -> str:
    """Format the command that resumes a run."""
    agent_option = f" --agent {quote(agent)}" if agent else ""
    return f"%kern continue {quote(run)}{agent_option}" + (f" --store {quote(store)}" if store else "")


def run_markup(run: Run, runs: Iterable[Run], limit: int) -> list[tuple[str, Markup]]:
    """Render the end of a paused run, a role and a body for each row; ``runs`` has its members' runs, too."""
    rows = [(_role(requirement), _markup(requirement, key, limit)) for requirement, key in _requirements(run)]
    return [*rows, *((title, tag("pre", command)) for title, command in _next_steps(run, runs))]


def run_text(run: Run, runs: Iterable[Run]) -> list[str]:
    """Render the same as lines of text."""
    text = []
    for requirement, key in _requirements(run):
        commands = " or ".join(answer_commands(requirement, key))
        details = formatting.truncate(commands if is_pending(requirement) else describe_state(requirement), _LINE)
        assignee = f" for {formatting.truncate(requirement.assignee, 60)}" if requirement.assignee else ""
        text.append(f"{_role(requirement)} {describe(requirement)}{assignee}: {details}")
        for question in feedback.questions_of(requirement):
            options = formatting.truncate(question.numbered, _LINE) or "any text"
            text.append(f"  {formatting.truncate(question.name, _LINE)}: {options}")
    return [*text, *map(": ".join, _next_steps(run, runs))]


def _requirements(run: Run) -> list[tuple[Requirement, str]]:
    """Return the requirements of a paused run, each with its short id."""
    if run.status != "PAUSED":
        return []
    prefixes = shortest_prefixes([requirement.requirement_id for requirement in run.requirements], ())
    return [(requirement, prefixes[requirement.requirement_id]) for requirement in run.requirements]


def _next_steps(run: Run, runs: Iterable[Run]) -> Iterator[tuple[str, str]]:
    """Yield what to do where a paused run itself has no pending requirement; a team's run waits for its members'."""
    if run.status != "PAUSED" or run.parent_run_id is not None or any(map(is_pending, run.requirements)):
        return
    ids, runs = {run.run_id}, list(runs)
    while members := {other.run_id for other in runs if other.parent_run_id in ids} - ids:
        ids |= members
    of_members = [requirement for r in runs if r.run_id in ids - {run.run_id} for requirement in r.requirements]
    is_empty = not (of_members or run.requirements)
    if is_empty and run.run_type == "agent":
        return  # a run of another framework, whose requirements are unknown
    if is_empty or any(map(is_pending, of_members)):
        yield "waiting for members", f"%kern inbox --session {quote(reference(run))}"
    else:
        yield "resume", continue_command(reference(run))


def reference(run: Run) -> str:
    """Return the reference to a run, or its id if it has no index."""
    return run.run_id if run.run_index is None else f"{run.session_id}/{run.run_index}"


def _role(requirement: Requirement) -> str:
    return "pending" if is_pending(requirement) else "requirement"


def _markup(requirement: Requirement, key: str, limit: int) -> Markup:
    """Render a requirement with its full arguments: who approves must see all of them."""
    tool = _call_name(requirement)
    assignee = requirement.assignee and f"for {requirement.assignee}"
    facts = filter(None, (tool and requirement.kind, assignee, describe_state(requirement)))
    head = join(tag("strong", isolate(tool or requirement.kind)), *map(isolate, facts), by=" · ")
    is_hidden = requirement.args is None or feedback.is_question_args(requirement)
    args = None if is_hidden else preformatted(formatting.format_value(requirement.args), limit)
    note, names = formatting.truncate(requirement.note or "", _LINE), ", ".join(field_names(requirement))
    return join(
        tag("p", head),
        tag("div", render_text(requirement.prompt, limit)) if requirement.prompt else None,
        args,
        *(_question_markup(question, limit) for question in feedback.questions_of(requirement)),
        tag("p", "fields: ", isolate(formatting.truncate(names, _LINE))) if names else None,
        tag("p", "note: ", preserve_whitespace(note)) if note else None,
        tag("pre", "\n".join(answer_commands(requirement, key))) if is_pending(requirement) else None,
    )


def _question_markup(question: feedback.Question, limit: int) -> Markup:
    """Render a question with its options, whose numbers are answers, too."""
    options = []
    for option in question.options:
        description = join(" — ", render_text(option.description, limit)) if option.description else None
        options.append(tag("li", tag("strong", render_text(option.label, limit)), description))
    hint = tag("p", "Several can be chosen.") if question.is_multiple else None
    header = join(tag("strong", isolate(question.header)), ": ") if question.header else None
    return join(tag("div", header, render_text(question.text, limit)), tag("ol", *options) if options else None, hint)


def sentences_text(sentences: Sequence[str]) -> str:
    """Render sentences, one a line."""
    return "\n".join(map(formatting.escape_controls, sentences))


def sentences_html(sentences: Sequence[str]) -> str:
    """Render sentences, one a paragraph."""
    return container(*(tag("p", isolate(sentence)) for sentence in sentences))
