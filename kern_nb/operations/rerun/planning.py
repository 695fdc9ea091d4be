"""Prepare a rerun before anything is written: the inputs, the branch point before them, the agent with its changes.

`prepare` finds the store and makes the agent and the branch; `_plan` selects the inputs that run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from kern_nb import models, store_registry
from kern_nb.agent.agent import Agent, Instructions
from kern_nb.db import SessionStore, session_writes
from kern_nb.db.reads import is_in_history
from kern_nb.db.references import Reference
from kern_nb.errors import BadUsage, NoStore, OwnerMismatch, SessionNotFound
from kern_nb.extra_keys import BY_TOOL, RERUN_OF, RETRY, STATE_ARGUMENT
from kern_nb.interop import media
from kern_nb.operations.agent_registry import is_same_store
from kern_nb.operations.rerun.result import Input, Rerun
from kern_nb.operations.run_index import RunEntry, RunIndex
from kern_nb.records import Message, Run, Session, text_of
from kern_nb.runtime.session_owner import SessionOwner, owner_fields
from kern_nb.views.rerun import describe_changes

_ID_DIGITS = 10
"""Random digits of a generated session id; a whole UUID would fill the tables that compare reruns."""


@dataclass(frozen=True)
class RerunRequest:
    """The arguments of `rerun`."""

    target: str | Session | Run
    agent: SessionOwner | None
    message: Any
    model: Any
    instructions: Instructions
    tools: Sequence[Any] | None
    name: str | None
    onward: bool
    store: str | SessionStore | None

    @property
    def reference(self) -> str:
        """The target as a reference."""
        if isinstance(self.target, str):
            return self.target
        index = self.target.run_index if isinstance(self.target, Run) else None
        if isinstance(self.target, (Run, Session)) and self.target.session_id is not None:
            return str(Reference(self.target.session_id, index))
        raise BadUsage(f"Expected a reference or a stored record, got {self.target!r}.", "rerun('chat/2', agent)")

    @property
    def changes(self) -> dict[str, Any]:
        """The arguments that replace the agent's."""
        values = {"model": self.model, "instructions": self.instructions, "tools": self.tools}
        return {name: value for name, value in values.items() if value is not None}


def prepare(request: RerunRequest) -> tuple[Rerun, Callable[[], None]]:
    """Return the rerun, before any input is run, and the function that writes its branch."""
    if request.agent is not None and not isinstance(request.agent, SessionOwner):
        message = f"agent must be an agent, team or workflow, got {request.agent!r}."
        raise BadUsage(message, "Pass the object, not its name.")
    if request.name is not None and (not isinstance(request.name, str) or not request.name):
        raise BadUsage(f"name must be a non-empty str, got {request.name!r}.", "For example: name='what-if'.")
    store, target = _locate(request)
    session = store.get_session(target.session_id, runs=False)
    if session is None:  # deleted in between
        message = f"Session {target.session_id!r} does not exist."
        raise SessionNotFound(message, "List the sessions with %kern sessions.")
    raw = isinstance(request.agent, SessionOwner) and not isinstance(request.agent, Agent)
    plan = _plan(store, target, message=request.message, onward=request.onward, raw=raw)
    session_id = request.name or f"rerun-{uuid4().hex[:_ID_DIGITS]}"
    runner = _runner(request, session, plan.runs[0], store)
    agent = runner.variant(db=store, session_id=session_id, user_id=session.user_id)
    changed = _describe_changes(request, agent)
    fields = _branch_fields(agent, session, target, plan.runs[0], changed)
    title = request.name or ", ".join([f"{target} again, by {agent.name or agent.id}", *describe_changes(changed)])

    def create_branch() -> None:
        options: dict[str, Any] = {"after": None, "before": plan.before, "name": title, "new_session_id": session_id}
        store.write(
            lambda connection: session_writes.branch(connection, store, session.session_id, **options, fields=fields)
        )

    of_run = target.run_index is not None and not request.onward and not isinstance(plan.before, tuple)
    original = Reference(target.session_id, target.run_index) if of_run else target
    return Rerun(original, session_id, [], agent, store, changed, plan.inputs, plan.skipped, of_run), create_branch


def _locate(request: RerunRequest) -> tuple[SessionStore, Reference]:
    """Return what is run again, and its store, which must be the agent's own if it has one."""
    agent = request.agent
    own = agent.db if agent is not None else None
    if request.store is not None:
        store = store_registry.find(request.store)
    else:
        store = own or (agent.store if agent is not None else store_registry.current_store())
    if own is not None and not is_same_store(own, store):
        raise _store_mismatch(request, own, store)
    try:
        return store, store.locate(request.reference)
    except SessionNotFound:
        if own is not None and (other := _find_in_current_store(request.reference)) is not None:
            raise _store_mismatch(request, own, other) from None
        raise


def _find_in_current_store(reference: str) -> SessionStore | None:
    try:
        store = store_registry.current_store()
        store.locate(reference)
    except (NoStore, SessionNotFound):
        return None
    return store


def _store_mismatch(request: RerunRequest, own: SessionStore, store: SessionStore) -> BadUsage:
    return BadUsage(
        f"{request.reference} is in {store.url}, but {request.agent!r} uses {own.url}.",
        "Pass agent.variant(db=store), or an agent without a db of its own.",
    )


def _runner(request: RerunRequest, session: Session, run: Run, store: SessionStore) -> SessionOwner:
    """Return the agent that runs, with the changes; by default one made from the record."""
    agent = request.agent
    if agent is None:
        return _recorded_agent(request, session, run, store)
    if None not in (agent.user_id, session.user_id) and agent.user_id != session.user_id:
        message = f"Session {session.session_id!r} belongs to another user than the agent's, {agent.user_id!r}."
        raise OwnerMismatch(message, "Pass an agent of the session's user, or one without a user.")
    return agent.variant(**request.changes)


def _recorded_agent(request: RerunRequest, session: Session, run: Run, store: SessionStore) -> Agent:
    if request.model is None:
        raise BadUsage(f"Rerunning {request.reference} needs an agent or a model.", "Pass agent=... or model=...")
    if run.run_type != "agent":
        message = f"{request.reference} is a {run.run_type}'s run, which a record cannot restore."
        raise BadUsage(message, "Pass agent=...")
    calls = store.tool_calls_df(session.session_id, lineage=True)
    names = calls.loc[calls["caller"] != "user", "tool_name"].dropna().unique().tolist()
    if names and request.tools is None:
        message = f"{session.session_id} has calls of {', '.join(names)}, which a record cannot restore."
        raise BadUsage(message, "Pass an agent, or tools=[...].")
    data = session.agent_data or {}
    system_text = next((text_of(message.content) for message in run.messages if message.role == "system"), None)
    name, instructions = data.get("name"), data.get("instructions")
    options: dict[str, Any] = {"instructions": instructions if isinstance(instructions, str) else system_text}
    name = name if isinstance(name, str) and name else None
    return Agent(id=run.agent_id or None, name=name, **options | request.changes)


def _describe_changes(request: RerunRequest, agent: SessionOwner) -> dict[str, Any]:
    """Return the requested changes as they are stored in the new session's metadata."""
    changes: dict[str, Any] = {}
    if request.model is not None:
        changes["model"] = models.model_name(request.model)
    if (instructions := request.instructions) is not None:
        text = instructions if isinstance(instructions, str) or callable(instructions) else "\n".join(instructions)
        changes["instructions"] = text if isinstance(text, str) else getattr(text, "__name__", repr(text))
    if request.tools is not None and isinstance(agent, Agent):
        tools = agent._tools  # noqa: SLF001 - as passed: they are validated later
        changes["tools"] = [getattr(tool, "name", None) or getattr(tool, "__name__", repr(tool)) for tool in tools]
    return changes | ({} if request.message is None else {"message": True})


def _branch_fields(
    agent: SessionOwner, session: Session, target: Reference, run: Run, changed: dict[str, Any]
) -> dict[str, Any]:
    """Return the fields of the branch that differ from its parent's: its owner, and what it repeats."""
    owner = owner_fields(agent)
    kind, data = owner["session_type"], owner.pop("owner_data")
    origin: dict[str, Any] = {"session_id": target.session_id}
    if target.run_index is not None:
        origin |= {"run_index": target.run_index, "run_id": run.run_id}
    if target.message_index is not None:
        origin["message_index"] = target.message_index
    metadata = {RERUN_OF: origin, "agent": agent.id, "changed": changed}
    if isinstance(agent, Agent):
        metadata["model"] = models.model_name(agent.model)  # replaces what a benchmark stored for the original
    no_owner = dict.fromkeys(("agent_id", "team_id", "workflow_id"))
    owner_data = {f"{kind}_data": (getattr(session, f"{kind}_data") or {}) | data}
    return no_owner | owner | owner_data | {"metadata": (session.metadata or {}) | metadata}


@dataclass(frozen=True)
class _Plan:
    """What to run again: inputs, the runs they come from, and references of the runs that have none.

    ``before`` is the first run or message that the branch does not inherit, as `SessionStore.branch` takes it.
    """

    before: int | tuple[int, int]
    inputs: tuple[Input, ...]
    runs: tuple[Run, ...]
    skipped: tuple[str, ...] = ()


def _plan(store: SessionStore, target: Reference, *, message: Any, onward: bool, raw: bool) -> _Plan:
    """Plan the rerun of a session (all runs), a run, or a message on; nothing is written.

    A message replaces the first input. With ``raw``, inputs are plain values, as a workflow takes them, not texts and
    files.

    Raises:
        BadUsage: There is no run or no input, or the target is within a member's run.
    """
    entries = _select(RunIndex(store, [target.session_id], lineage=True), target, onward=onward)
    runs = [store.get_run(entry.run_id) for entry in entries]
    contents = [_recorded_input(run) for run in runs]
    before: int | tuple[int, int] = entries[0].run_index
    if target.message_index is not None:
        before, contents[0] = _split_at_message(runs[0], target.message_index)
    if contents[0] is None and message is None and target.run_index is not None:
        raise _no_input(runs[0], target)
    inputs: list[Input] = []
    skipped: list[str] = []
    for run, content in zip(runs, contents, strict=True):
        replacement = message if run is runs[0] else None
        origin = {"session_id": run.session_id, "run_id": run.run_id, "run_index": run.run_index}
        if content is None and replacement is None:
            skipped.append(str(Input(None, origin)))
        else:
            value = _content(content, replacement, store, raw=raw)
            inputs.append(Input(value, origin, run.internal.get(STATE_ARGUMENT) or {}))
    if not inputs:
        raise BadUsage(f"No run of {target} has an input to run again.", "See its runs with %kern show.")
    return _Plan(before, tuple(inputs), tuple(runs), tuple(skipped))


def _select(runs: RunIndex, target: Reference, *, onward: bool) -> list[RunEntry]:
    """Return the runs to run again. Members' runs are not among them: their team's run makes them."""
    if not runs.all():
        raise BadUsage(f"{target} has no runs to run again.", "Run its agent first.")
    top_level_runs = [run for run in runs.all() if run.parent_run_id is None]
    if target.run_index is None:
        return top_level_runs
    first = runs.at(target.run_index)
    if first.parent_run_id is not None:
        top_level = f"{target.session_id}/{(runs.top_level(first.run_id) or first).run_index}"
        raise BadUsage(f"{target} is a member's run within run {top_level}.", f"Run that one again: {top_level}")
    return [run for run in top_level_runs if run.run_index >= first.run_index] if onward else [first]


def _recorded_input(run: Run) -> Any:
    """Return a run's input, else the first content of a user's message in it; None if it has neither."""
    if run.input not in (None, []):
        return run.input
    contents = (message.content for message in run.messages if _is_by_user(message))
    return next((content for content in contents if content not in (None, [])), None)


def _is_by_user(message: Message) -> bool:
    added = any(mark in message.internal for mark in (BY_TOOL, RETRY))  # by a tool, or by pydantic-ai
    return message.role == "user" and not message.from_history and not added


def _split_at_message(run: Run, index: int) -> tuple[int | tuple[int, int], Any]:
    """Return the branch point before a message, and its content if it is a user's.

    If only instructions precede the message, the branch excludes the whole run: instructions are the agent's own.
    """
    earlier = [m for m in run.messages if m.message_index is not None and m.message_index < index]
    message = next(m for m in run.messages if m.message_index == index)
    run_index = run.run_index or 0
    before = (run_index, index) if any(map(is_in_history, earlier)) else run_index
    return before, (message.content or None if _is_by_user(message) else None)


def _no_input(run: Run, target: Reference) -> BadUsage:
    hint = "Pass the input: message=..."
    if target.message_index is None:
        return BadUsage(f"Run {target} has no input.", hint)
    role = next(m.role for m in run.messages if m.message_index == target.message_index)
    return BadUsage(f"{target} must be a user's message with text, got role {role!r}.", hint)


def _content(recorded: Any, message: Any, store: SessionStore, *, raw: bool) -> Any:
    """Return an input as an agent takes it; a recorded one with its files, as far as the store has them."""
    if raw:
        return recorded if message is None else message
    content = recorded if recorded is None or isinstance(recorded, str) else media.load_content(recorded, store)
    if message is None:
        return media.build_prompt(content, {})
    if isinstance(message, str) and isinstance(content, list):  # only the text is replaced; the files stay
        return media.build_prompt([message, *(part for part in content if not isinstance(part, str))], {})
    return media.build_prompt(message, {})
