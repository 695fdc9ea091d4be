"""`inbox_widget`: resolve the requirements of paused runs by clicks. While on screen it refreshes automatically."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage, StoreBusy
from kern_nb.operations import agent_registry, inbox
from kern_nb.operations.inbox import short_ids
from kern_nb.operations.run_index import RunEntry, RunIndex
from kern_nb.records import Requirement, text_of
from kern_nb.text import formatting
from kern_nb.views import requirements
from kern_nb.views.transcript import run_html
from kern_nb.widgets import transcript_data
from kern_nb.widgets.base import decode_key, encode_key
from kern_nb.widgets.requirements.actions import RequirementActions, requirements_of_latest_pause
from kern_nb.widgets.rpc import call, error_payload

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.records import Run

MAX_RUNS = 200  # the most runs that are shown at once
_LINE = 160


def inbox_widget(
    store: str | SessionStore | None = None,
    *,
    assignee: str | None = None,
    user_id: str | None = None,
    by: str | None = None,
) -> InboxWidget:
    """Open the interactive inbox: approve, edit, reject, answer or hand off requirements, and resume their runs.

    Args:
        store: A store or its name; None for the current store.
        assignee: Only requirements of this assignee.
        user_id: Only sessions of this user.
        by: Who answers; None for the assignee, else the login name.
    """
    return InboxWidget(store, assignee=assignee, user_id=user_id, by=by)


class InboxWidget(RequirementActions, script="inbox", parts=("texts", "watch", "asked")):
    """The requirements of paused runs, by run, oldest first.

    Resolved requirements stay on screen until they are cleared. Once all requirements of a run are resolved, a click
    resumes it, if its agent is a variable of the notebook.

    Attributes:
        assignee: Only requirements of this assignee are shown; None for all.
        user_id: Only sessions of this user are shown; None for all.
    """

    def __init__(
        self, store: str | SessionStore | None, *, assignee: str | None, user_id: str | None, by: str | None
    ) -> None:
        self.assignee = assignee
        self.user_id = user_id
        self._lock = threading.Lock()
        self._poll_lock = threading.Lock()
        self._on_screen: dict[tuple[str | None, str], Requirement] = {}
        self._runs: RunIndex | None = None
        self._outcomes: dict[str, dict[str, Any]] = {}
        super().__init__(store, by=assignee if by is None else by)

    def __repr__(self) -> str:
        n_pending = sum(map(requirements.is_pending, list(self._on_screen.values())))
        return f"<InboxWidget: {formatting.pluralize(n_pending, 'pending requirement')}>"

    def fallback_html(self) -> str:
        """Render the inbox as a table."""
        return inbox.inbox(assignee=self.assignee, user_id=self.user_id, store=self.store)._repr_html_()

    # The view ---------------------------------------------------------------------------------------------------------

    @call
    def poll(self, mark: str, limit: int) -> dict[str, Any]:
        """Return the state and its ``mark``, with up to ``limit`` runs; only the mark if it is unchanged."""
        with self._poll_lock:  # another page may poll, too
            try:
                every = self._load()
            except StoreBusy:
                if mark:
                    return {"mark": mark, "busy": True}
                raise
            with self._lock:
                outcomes = sorted((run_id, outcome["state"]) for run_id, outcome in self._outcomes.items())
            agents = sorted(agent_registry.runners())
            state = [*map(_requirement_state, every), outcomes, agents, self.assignee, self.by, limit]
            new_mark = str(hash(repr(state)))
            view = {} if new_mark == mark else self._view(every, min(limit, MAX_RUNS))
            return {"mark": new_mark, **view}

    @call
    def narrow(self, assignee: str) -> None:
        """Show only the requirements of an assignee, given by key; all if it is empty."""
        self.assignee = decode_key(assignee) if assignee else None
        self._on_screen = {}

    @call
    def clear(self) -> None:
        """Remove resolved requirements from the screen."""
        with self._lock:
            self._outcomes = {name: value for name, value in self._outcomes.items() if value["state"] == "going"}
        self._on_screen = {name: r for name, r in self._on_screen.items() if requirements.is_pending(r)}

    @call
    def conversation(self, key: str) -> str:
        """Render the messages of a run."""
        return run_html(self.store.get_run(decode_key(key)))

    def _load(self) -> list[Requirement]:
        """Load the requirements of paused runs, and update those on screen; oldest first."""
        paused = self.store.requirements(user_id=self.user_id, status=None, run_status="PAUSED")
        by_key = {r.key: r for r in paused}
        # Resolved, and their runs resumed elsewhere.
        pending = (r for name, r in self._on_screen.items() if name not in by_key and requirements.is_pending(r))
        for run_id in {r.run_id for r in pending}:
            for requirement in self.store.requirements(run_id=run_id, status=None):
                if requirement.key in self._on_screen:
                    self._on_screen[requirement.key] = requirement
        self._on_screen |= {name: r for name, r in by_key.items() if name in self._on_screen}
        every = by_key | self._on_screen
        return sorted(every.values(), key=lambda r: (r.created_at is None, r.created_at, r.requirement_id))

    def _view(self, every: list[Requirement], limit: int) -> dict[str, Any]:
        self._runs = runs = RunIndex(self.store, (r.session_id for r in every))
        by_run: dict[str, list[Requirement]] = {}
        for requirement in every:
            top = runs.top_level(requirement.run_id)
            by_run.setdefault(top.run_id if top else str(requirement.run_id), []).append(requirement)
        groups = {run_id: selected for run_id, of_run in by_run.items() if (selected := self._select(run_id, of_run))}
        visible = dict(list(groups.items())[:limit])
        names = short_ids(self.store, [r for of_run in visible.values() for r in of_run])
        self._on_screen |= {r.key: r for of_run in visible.values() for r in of_run}
        people = {r.assignee for r in every if r.assignee and requirements.is_pending(r)}
        people |= {self.assignee} if self.assignee else set()
        return {
            "runs": [self._run(run_id, of_run, by_run[run_id], names) for run_id, of_run in visible.items()],
            "more": len(groups) - len(visible),
            "left": sum(requirements.is_pending(r) for of_run in groups.values() for r in of_run),
            "assignee": encode_key(self.assignee) if self.assignee else "",
            "people": [{"key": encode_key(name), "name": formatting.truncate(name, 80)} for name in sorted(people)],
            "by": formatting.escape_controls(self.by or ""),
        }

    def _select(self, run_id: str, of_run: list[Requirement]) -> list[Requirement]:
        """Select the requirements of a run that match the filter or are on screen.

        If none is pending, and the run was not resumed, those of its latest pause are shown.
        """
        matching = [r for r in of_run if self.assignee in (None, r.assignee) or r.key in self._on_screen]
        if not any(map(requirements.is_pending, of_run)) and run_id not in self._outcomes:
            return requirements_of_latest_pause(matching)
        return [r for r in matching if requirements.is_pending(r) or r.key in self._on_screen]

    def _run(self, run_id: str, selected: list[Requirement], of_run: list[Requirement], names: Any) -> dict[str, Any]:
        run = self._find_run(run_id)
        variable = agent_registry.find_runner_of(run, self.store) if run else None
        n_pending = sum(map(requirements.is_pending, of_run))
        with self._lock:
            outcome = self._outcomes.get(run_id)
        status = run.status if run else None
        return {
            "key": encode_key(run_id),
            "place": formatting.truncate(str(run or of_run[0].session_id), _LINE),
            "agent": formatting.truncate((run and run.owner) or "", _LINE),
            "asked": formatting.truncate((run and run.input) or "", _LINE),
            "cards": [self.form_data(r, names[r.key]) for r in selected],
            "left": n_pending,
            "elsewhere": n_pending - sum(map(requirements.is_pending, selected)),
            "ready": not n_pending and status == "PAUSED" and outcome is None,
            "status": "" if status in (None, "PAUSED") else formatting.format_status(status),
            "here": variable or "",
            "line": self.continue_line(run, variable) if run else "",
            "going": outcome,
        }

    def _find_run(self, run_id: str | None) -> RunEntry | None:
        return self._runs.find(run_id) if self._runs else None

    # Actions ----------------------------------------------------------------------------------------------------------

    def owner_of(self, requirement: Requirement) -> str | None:
        """Return the agent of the requirement's run; of a member's run, the member."""
        run = self._find_run(requirement.run_id)
        return run.owner if run else None

    def after_action(self, requirement: Requirement) -> None:
        """Keep the requirement on screen."""
        self._on_screen[requirement.key] = requirement

    @call(slow=True)
    def resume(self, key: str) -> dict[str, Any]:
        """Resume a run with the notebook's agent, in the background."""
        from kern_nb.operations.resume import prepare_resume
        from kern_nb.runtime import background, events

        run_id = decode_key(key)
        run = self._find_run(run_id)
        variable = agent_registry.find_runner_of(run, self.store) if run else None
        if run is None or variable is None:
            raise BadUsage("The agent of this run is not a variable in this notebook.", "Create it, then try again.")
        work = prepare_resume(agent_registry.runners()[variable], run, self.store)
        with self._lock:
            if self._outcomes.get(run_id, {}).get("state") == "going":
                return {}
            self._outcomes[run_id] = {"state": "going"}
        background.BackgroundRun(work, events.ignore, partial(self._finish, run_id))
        return {"said": f"Resuming {run}.", "line": self.continue_line(run, variable)}

    def _finish(self, run_id: str, run: Run | None, error: BaseException | None) -> None:
        """Store the outcome of a resumed run; a run that paused again has none."""
        with self._lock:
            if run is not None and run.status == "PAUSED":
                del self._outcomes[run_id]
            else:
                self._outcomes[run_id] = _outcome(run, error)
        self.tell({"event": "changed"})


def _requirement_state(requirement: Requirement) -> tuple[Any, ...]:
    """Return what may change in a requirement."""
    people = (requirement.assignee, requirement.claimed_by, requirement.resolved_by)
    is_pending = requirements.is_pending(requirement)
    return requirement.requirement_id, requirement.status, is_pending, requirement.note, *people


def _outcome(run: Run | None, error: BaseException | None) -> dict[str, Any]:
    if error is not None:
        return {"state": "failed", "error": error_payload(error)}
    if run is None:
        return {"state": "stopped"}
    answer = text_of(run.output) or ("" if run.output is None else formatting.format_value(run.output))
    preview = transcript_data.preview(answer, 600)
    return {"state": "ended", "status": formatting.format_status(run.status), **preview}
