"""The result of a rerun: the branch, its new runs, the comparison; and how its inputs are run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kern_nb.db import SessionStore
from kern_nb.db.references import Reference
from kern_nb.display import DisplayMixin
from kern_nb.errors import BadUsage, KernError, RunFailed, SessionNotFound
from kern_nb.extra_keys import RERUN_OF
from kern_nb.records import Run, RunStatus, Session
from kern_nb.runtime import event_loop
from kern_nb.runtime.event_loop import in_thread
from kern_nb.runtime.events import ignore
from kern_nb.runtime.provenance import current_cell
from kern_nb.runtime.session_owner import SessionOwner

if TYPE_CHECKING:
    from kern_nb.analysis.compare import Comparison


@dataclass(frozen=True)
class Input:
    """An input to run again, the run it comes from, and the part of the session state that was passed with it."""

    content: Any
    origin: dict[str, Any]
    session_state: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.origin['session_id']}/{self.origin['run_index']}"


@dataclass(frozen=True, repr=False, eq=False)
class Rerun(DisplayMixin):
    """A part of a session that was run again.

    Attributes:
        original: The session, run or message that was run again.
        session_id: The branch.
        runs: The new runs, in order.
        agent: The agent that ran, with the changes, and with the branch as its session.
        store: The store of both sessions.
        changed: The requested changes: model, instructions, tools, message.
        left: The remaining inputs, after a failed or paused run.
        skipped: References of the original's runs without an input.
        of_run: Whether the comparison is of two runs, not of two sessions.
    """

    _view = "kern_nb.views.rerun:rerun"

    original: Reference
    session_id: str
    runs: list[Run]
    agent: SessionOwner
    store: SessionStore
    changed: dict[str, Any] = field(default_factory=dict)
    left: tuple[Input, ...] = ()
    skipped: tuple[str, ...] = ()
    of_run: bool = False

    @property
    def status(self) -> RunStatus:
        """The status of the last run: COMPLETED if all succeeded."""
        return self.runs[-1].status

    @property
    def output(self) -> Any:
        """The output of the last run."""
        return self.runs[-1].output

    @property
    def error(self) -> str | None:
        """The error of the last run, if it failed."""
        return self.runs[-1].error

    @cached_property
    def session(self) -> Session:
        """The branch with all its runs, inherited ones first.

        Raises:
            SessionNotFound: It was deleted.
        """
        session = self.store.get_session(self.session_id)
        if session is None:
            raise SessionNotFound(f"Session {self.session_id!r} was deleted.", "List the sessions with %kern sessions.")
        return session

    @cached_property
    def comparison(self) -> Comparison:
        """The original compared with the rerun.

        For ``chat/2``, the run with the new one; for a session, a message or onward, the session with the branch.
        """
        from kern_nb.analysis.compare import compare

        if self.of_run:
            return compare(str(self.original), f"{self.session_id}/{self.runs[0].run_index}", store=self.store)
        return compare(self.original.session_id, self.session_id, store=self.store)

    def continue_run(self) -> Rerun:
        """Resume the paused or failed run with the same agent, then run the remaining inputs.

        Returns:
            The updated rerun.

        Raises:
            StillWaiting: Requirements are pending.
            AlreadyClaimed: Another process resumes the run.
            RunClosed: The run is finished.
            BadUsage: All runs are completed.
        """
        provenance = current_cell()
        return event_loop.run(lambda: continue_rerun(self, provenance))

    async def acontinue_run(self) -> Rerun:
        """Await `continue_run`."""
        return await continue_rerun(self, current_cell())


async def run_inputs(rerun: Rerun, provenance: dict[str, Any] | None) -> Rerun:
    """Run the remaining inputs, until a run fails or pauses."""
    runs, remaining = list(rerun.runs), list(rerun.left)
    while remaining and (not runs or runs[-1].status == "COMPLETED"):
        runs.append(await _run_input(rerun, remaining.pop(0), {run.run_id for run in runs}, provenance))
    return replace(rerun, runs=runs, left=tuple(remaining))


async def _run_input(rerun: Rerun, item: Input, earlier: set[str], provenance: dict[str, Any] | None) -> Run:
    """Run an input and return its run, however it ended; it is stored unless this raises."""
    extra = ({"notebook": provenance} if provenance else {}) | {RERUN_OF: item.origin}
    agent = rerun.agent
    try:
        options: dict[str, Any] = {"session_state": item.session_state} if item.session_state else {}
        work = agent._prepare_run(item.content, rerun.session_id, agent.user_id, extra, **options)  # noqa: SLF001 - with provenance
        return await work(ignore)
    except Exception as error:
        stored = await in_thread(lambda: _latest_run(rerun, earlier)) if isinstance(error, RunFailed) else None
        if stored is not None:
            return stored
        note = f"The branch {rerun.session_id!r} remains."
        if isinstance(error, KernError):
            error.hint = f"{error.hint} {note}".strip()
        else:
            error.add_note(note)
        raise


def _latest_run(rerun: Rerun, earlier: set[str]) -> Run | None:
    """Return the latest new run of the branch that is not a member's."""
    df = rerun.store.runs_df(rerun.session_id)
    own = df.loc[df["parent_run_id"].isna() & ~df["run_id"].isin(earlier)].sort_values("run_index")
    return None if own.empty else rerun.store.get_run(str(own["run_id"].iloc[-1]))


async def continue_rerun(rerun: Rerun, provenance: dict[str, Any] | None) -> Rerun:
    """See `Rerun.continue_run`."""
    last = rerun.runs[-1]
    current = await in_thread(lambda: rerun.store.get_run(last.run_id))
    if current.status == "COMPLETED" and not rerun.left and current.status == last.status:
        raise BadUsage(f"{rerun.session_id}/{last.run_index} is already completed.", "There is nothing to resume.")
    if current.status != "COMPLETED":  # else it was resumed by %kern continue
        try:
            current = await rerun.agent._resume_run(last.run_id, None, ignore)  # noqa: SLF001 - in the loop that runs this
        except RunFailed:
            current = await in_thread(lambda: rerun.store.get_run(last.run_id))
            if current.status != "ERROR":  # it did not start, and is pending as before
                raise
    return await run_inputs(replace(rerun, runs=[*rerun.runs[:-1], current]), provenance)
