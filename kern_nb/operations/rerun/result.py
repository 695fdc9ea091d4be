"""What comes of a rerun: the branch, its new runs, the comparison; and how the inputs are given."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kern_nb.db import SessionStore
from kern_nb.db.references import Reference
from kern_nb.display import DisplayMixin
from kern_nb.errors import BadUsage, KernError, RunFailed, SessionNotFound
from kern_nb.extra_keys import RERUN_OF
from kern_nb.operations.rerun.planning import Input
from kern_nb.records import Run, RunStatus, Session
from kern_nb.runtime import event_loop
from kern_nb.runtime.event_loop import in_thread
from kern_nb.runtime.events import ignore
from kern_nb.runtime.provenance import current_cell
from kern_nb.runtime.session_owner import SessionOwner

if TYPE_CHECKING:
    from kern_nb.analysis.compare import Comparison


@dataclass(frozen=True, repr=False, eq=False)
class Rerun(DisplayMixin):
    """A part of a session that was run again.

    Attributes:
        original: What was run again.
        session_id: The branch.
        runs: The new runs, in order.
        agent: Who ran: the agent that was given, with the changes, and with the branch as its session.
        store: Where both sessions are.
        changed: What differs by request: model, instructions, tools, message.
        left: Inputs that were not given, because a run before them failed or waits.
        skipped: Runs of the original that have no input to give, as people write them.
        of_run: Whether one run is compared with one, and not session with session.
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
        """The status of the last run: COMPLETED where all went well."""
        return self.runs[-1].status

    @property
    def output(self) -> Any:
        """What the last run gave."""
        return self.runs[-1].output

    @property
    def error(self) -> str | None:
        """Why the last run failed, if it did."""
        return self.runs[-1].error

    @cached_property
    def session(self) -> Session:
        """The branch with all its runs, inherited ones first.

        Raises:
            SessionNotFound: it was deleted.
        """
        found = self.store.get_session(self.session_id)
        if found is None:
            raise SessionNotFound(f"Session {self.session_id!r} is gone.", "List those there are with %kern sessions.")
        return found

    @cached_property
    def comparison(self) -> Comparison:
        """The original beside what came of it now.

        Of ``chat/2`` the run beside the new one; of a session, of a message, and onward, the session beside the branch.
        """
        from kern_nb.analysis.compare import compare

        if self.of_run:
            return compare(str(self.original), f"{self.session_id}/{self.runs[0].run_index}", store=self.store)
        return compare(self.original.session_id, self.session_id, store=self.store)

    def continue_run(self) -> Rerun:
        """Go on with the run that waited or failed, by the same agent, then with the inputs that are left.

        Returns:
            The whole, as it is then.

        Raises:
            StillWaiting, AlreadyClaimed, RunClosed: see `SessionOwner.continue_run`.
            BadUsage: all runs were completed.
        """
        made_by = current_cell()
        return event_loop.run(lambda: continued(self, made_by))

    async def acontinue_run(self) -> Rerun:
        """As `continue_run`, to be awaited."""
        return await continued(self, current_cell())


async def give(one: Rerun, made_by: dict[str, Any] | None) -> Rerun:
    """Give the inputs that are left, until a run fails or waits."""
    runs, left = list(one.runs), list(one.left)
    while left and (not runs or runs[-1].status == "COMPLETED"):
        runs.append(await _run(one, left.pop(0), {run.run_id for run in runs}, made_by))
    return replace(one, runs=runs, left=tuple(left))


async def _run(one: Rerun, given: Input, known: set[str], made_by: dict[str, Any] | None) -> Run:
    """One of the inputs, to the end of its run, however that is; it is stored unless this raises."""
    extra = ({"notebook": made_by} if made_by else {}) | {RERUN_OF: given.of}
    agent = one.agent
    try:
        options = {"session_state": given.session_state} if given.session_state else {}
        work = agent._prepare_run(given.content, one.session_id, agent.user_id, extra, **options)  # noqa: SLF001 - with provenance
        return await work(ignore)
    except Exception as error:
        stored = await in_thread(lambda: _latest(one, known)) if isinstance(error, RunFailed) else None
        if stored is not None:
            return stored
        remains = f"The branch {one.session_id!r} remains."
        if isinstance(error, KernError):
            error.hint = f"{error.hint} {remains}".strip()
        else:
            error.add_note(remains)
        raise


def _latest(one: Rerun, known: set[str]) -> Run | None:
    """The latest run of the branch's own that is no member's, if it is a new one."""
    df = one.store.runs_df(one.session_id)
    own = df.loc[df["parent_run_id"].isna() & ~df["run_id"].isin(known)].sort_values("run_index")
    return None if own.empty else one.store.get_run(str(own["run_id"].iloc[-1]))


async def continued(one: Rerun, made_by: dict[str, Any] | None) -> Rerun:
    """See `Rerun.continue_run`."""
    last = one.runs[-1]
    now = await in_thread(lambda: one.store.get_run(last.run_id))
    if now.status == "COMPLETED" and not one.left and now.status == last.status:
        raise BadUsage(f"{one.session_id}/{last.run_index} was completed.", "There is nothing to go on with.")
    if now.status != "COMPLETED":  # else somebody went on with it by %kern continue
        try:
            now = await one.agent._resume_run(last.run_id, None, ignore)  # noqa: SLF001 - in the loop that runs this
        except RunFailed:
            now = await in_thread(lambda: one.store.get_run(last.run_id))
            if now.status != "ERROR":  # nothing came of it, and it waits as before
                raise
    return await give(replace(one, runs=[*one.runs[:-1], now]), made_by)
