"""Resume a run from a line: find the run, its store, and the agent of the notebook that resumes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kern_nb import store_registry
from kern_nb.errors import BadUsage, KernError, NoStore, RequirementNotFound, SessionNotFound
from kern_nb.operations import agent_registry, attachments
from kern_nb.operations.agent_registry import is_same_store
from kern_nb.operations.attachments import Attachment
from kern_nb.operations.inbox import find_requirement
from kern_nb.operations.run_index import RunEntry, RunIndex
from kern_nb.views.requirements import continue_command

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.operations.agent_registry import Runner
    from kern_nb.records import Run
    from kern_nb.runtime.run_modes import RunFunction

UNFINISHED = ("PAUSED", "INTERRUPTED", "RUNNING")
"""The statuses of runs that a session's reference may mean; claiming one that is still running is refused."""


def continue_run(reference: str, *, agent: str | None = None, store: str | SessionStore | None = None) -> Run:
    """Resume a run that paused and whose requirements are resolved, or that was interrupted.

    An attached agent of another framework resumes its paused runs.

    Args:
        reference: The run (``chat/2``), its session if only one run of it is unfinished, or one of its requirements.
        agent: The agent that resumes: a variable of the notebook, an id or a name; by default the agent of the run.
        store: The store of the run; an agent without a ``db`` of its own resumes there. By default the given agent's
            store, else the one in use, else that of any agent of the notebook.

    Returns:
        The run, completed or paused again.

    Raises:
        BadUsage: No agent of the notebook fits, or it uses another store.
        SessionNotFound: There is no such session.
        RunNotFound: There is no such run.
        StillWaiting: Requirements are pending.
        AlreadyClaimed: Another process resumes the run.
        RunClosed: The run is finished.
    """
    runner = None if agent is None else agent_registry.find_runner(agent)
    opened, run = _find(reference, _candidate_stores(runner, store))
    runner = runner or _owner(run, opened)
    if isinstance(runner, Attachment):
        return _resume_attached(runner, run, opened)
    if store is not None and runner.db is None:
        runner = runner.variant(db=opened)
    if not is_same_store(runner.store, opened):
        raise BadUsage(
            f"Run {run} is in {opened.url}, but {runner!r} uses {runner.store.url}.",
            "Use the run's store: %kern use NAME" if runner.db is None else "Name an agent with that db: --agent NAME",
        )
    return runner.continue_run(run.run_id, session_id=run.session_id, stream=False)


def prepare_resume(runner: Runner, run: RunEntry, store: SessionStore) -> RunFunction:
    """Prepare the continuation of a run in the background, for `kern_nb.runtime.background`.

    Args:
        runner: The agent that resumes.
        run: The run.
        store: Its store.

    Raises:
        BadUsage: The agent uses another store.
    """
    from kern_nb.runtime import background
    from kern_nb.runtime.event_loop import in_thread

    if not isinstance(runner, Attachment):
        if not is_same_store(runner.store, store):
            message = f"{runner!r} stores its runs in {runner.store.url}, the run is in {store.url}."
            raise BadUsage(message, "Use the store of the run: %kern use NAME")
        return background.prepare_resume(runner, run.run_id, session_id=run.session_id)
    attachment = runner
    _require_fit(attachment, run, store)

    async def work(emit: object) -> Run:
        del emit  # the bridge states the end only
        return await in_thread(lambda: _resume_attached(attachment, run, store))

    return work


def _resume_attached(attachment: Attachment, run: RunEntry, store: SessionStore) -> Run:
    _require_fit(attachment, run, store)
    return attachment.resume(store.get_run(run.run_id))


def _require_fit(attachment: Attachment, run: RunEntry, store: SessionStore) -> None:
    """Check that an attached agent writes to the store of a run, and that its framework made the run.

    Raises:
        BadUsage: It does not.
    """
    title = attachments.TITLES[attachment.framework]
    if not is_same_store(attachment.store, store):
        message = f"Run {run} is in {store.url}, but this agent of {title} is attached to {attachment.store.url}."
        raise BadUsage(message, "Attach it to the run's store: %kern attach-agent NAME --store STORE")
    made_by = attachments.framework_of(store, run.run_id)
    if made_by not in (None, attachment.framework):
        message = f"Run {run} is of {attachments.TITLES.get(made_by, made_by)}, and the agent is of {title}."
        raise BadUsage(message, f"Name the agent that made it: {continue_command(str(run), 'NAME')}")


def _candidate_stores(runner: Runner | None, store: str | SessionStore | None) -> list[SessionStore]:
    if store is not None:
        return [store_registry.find(store)]
    if runner is not None:
        return [runner.store]
    agents = agent_registry.runners()
    stores: list[SessionStore] = []
    try:
        stores.append(store_registry.current_store())
    except NoStore:
        if not agents:
            raise
    return stores + [agent.store for agent in agents.values()]


def _find(reference: str, stores: list[SessionStore]) -> tuple[SessionStore, RunEntry]:
    """Return the run, and the first store that has it."""
    first_error: KernError | None = None
    for store in stores:
        try:
            return store, _locate(store, reference)
        except SessionNotFound as error:
            first_error = first_error or error
    raise first_error or NoStore("No store is attached.", "Attach one, for example: %kern attach sessions.duckdb")


def _locate(store: SessionStore, reference: str) -> RunEntry:
    try:
        location = store.locate(reference)
    except SessionNotFound as error:
        try:
            requirement = find_requirement(store, reference)
        except RequirementNotFound:
            raise error from None
        runs, run_id = RunIndex(store, [requirement.session_id]), requirement.run_id
    else:
        runs = RunIndex(store, [location.session_id])
        if location.run_index is None:
            return _unfinished_run(runs, location.session_id)
        named = RunIndex(store, [location.session_id], lineage=True).at(location.run_index)
        if named.session_id != location.session_id:
            message = f"Run {location.session_id}/{location.run_index} is inherited from {named.session_id}."
            raise BadUsage(message, f"Resume it there: {continue_command(str(named))}")
        run_id = named.run_id
    run = runs.top_level(run_id)
    if run is None:  # deleted in between
        raise SessionNotFound(f"Run {reference!r} does not exist.", "List the runs with %kern load runs.")
    return run


def _unfinished_run(runs: RunIndex, session_id: str) -> RunEntry:
    unfinished = [run for run in runs.all() if run.parent_run_id is None and run.status in UNFINISHED]
    if len(unfinished) == 1:
        return unfinished[0]
    if not unfinished:
        hint = f"See its runs: %kern show {session_id}"
        raise BadUsage(f"Session {session_id} has no paused or interrupted run.", hint)
    names = ", ".join(f"{run} {run.status}" for run in unfinished)
    hint = f"Name one: {continue_command(str(unfinished[-1]))}"
    raise BadUsage(f"Session {session_id} has several unfinished runs: {names}.", hint)


def _owner(run: RunEntry, store: SessionStore) -> Runner:
    matches = agent_registry.runners_of(run, store)
    if variable := agent_registry.only(matches):
        return matches[variable]
    framework = attachments.framework_of(store, run.run_id)
    attached = {name: a for name, a in agent_registry.attached_agents().items() if a.framework == framework}
    agents = agent_registry.runners() if framework is None else attached
    hint = f"Name one: {continue_command(str(run), next(iter(matches or agents), 'NAME'))}"
    if matches:
        raise BadUsage(f"Several agents have the id or name {run.owner!r}: {', '.join(matches)}.", hint)
    if framework is None:
        available = f"the agents of this notebook are: {', '.join(agents)}" if agents else "this notebook has no agent"
        hint = hint if agents else agent_registry.CREATE_HINT
        raise BadUsage(f"Run {run} belongs to {run.owner!r}; {available}.", hint)
    title = attachments.TITLES.get(framework, framework)
    owner = f"{run.owner!r}, an agent of {title}" if run.owner else f"an agent of {title} without a name"
    available = f"those of this notebook are: {', '.join(agents)}" if agents else "none is attached in this notebook"
    raise BadUsage(
        f"Run {run} belongs to {owner}; {available}.", hint if agents else attachments.attach_hint(run.owner)
    )
