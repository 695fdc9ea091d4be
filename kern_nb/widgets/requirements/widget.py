"""`inbox_widget`: what paused runs wait for, answered by a click. On the screen it looks again by itself."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage, StoreBusy
from kern_nb.operations import agent_registry, inbox, resume
from kern_nb.operations.inbox import short_ids
from kern_nb.operations.run_index import RunEntry, RunIndex
from kern_nb.records import Requirement, text_of
from kern_nb.text import formatting
from kern_nb.views import requirements
from kern_nb.views.transcript import run_html
from kern_nb.widgets import transcript_data
from kern_nb.widgets.base import id_of, key_of
from kern_nb.widgets.requirements import form
from kern_nb.widgets.requirements.actions import Answering, latest_pause
from kern_nb.widgets.rpc import call, told

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.records import Run

MOST = 200
"""The most runs that are shown at once."""

_LINE = 160
_NAME = 80
_ANSWER = 600


def inbox_widget(
    store: str | SessionStore | None = None,
    *,
    assignee: str | None = None,
    user_id: str | None = None,
    by: str | None = None,
) -> InboxWidget:
    """The inbox to click at: approve, edit, reject, answer, hand on; then go on with the run.

    Args:
        store: A store or the name of one; the one in use where None.
        assignee: Only what one person is to answer.
        user_id: Only in the sessions of one user.
        by: Who answers; the assignee, else the login name where None.
    """
    return InboxWidget(store, assignee=assignee, user_id=user_id, by=by)


class InboxWidget(Answering, script="inbox", parts=("texts", "watch", "asked")):
    """What paused runs wait for, by run, oldest first.

    What was answered stays on the screen until it is cleared: by whom, and what became of the run. A run whose last
    answer is there is gone on with by a click, where its agent is among the notebook's variables.

    Attributes:
        assignee: Only what this person is to answer is shown; None: all.
        user_id: Only sessions of this user are shown; None: all.
    """

    def __init__(
        self, store: str | SessionStore | None, *, assignee: str | None, user_id: str | None, by: str | None
    ) -> None:
        self.assignee = assignee
        self.user_id = user_id
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._seen: dict[str, Requirement] = {}
        self._places: RunIndex | None = None
        self._going: dict[str, dict[str, Any]] = {}
        super().__init__(store, by=assignee if by is None else by)

    def __repr__(self) -> str:
        """How much there is to answer, as it was last seen."""
        left = sum(map(requirements.is_waiting, list(self._seen.values())))
        return f"<InboxWidget {formatting.plural(left, 'requirement')} to answer>"

    def still(self) -> str:
        """The inbox as a table."""
        found = inbox.inbox(assignee=self.assignee, user_id=self.user_id, store=self.store)
        return found._repr_html_()

    # What is shown ----------------------------------------------------------------------------------------------------

    @call
    def look(self, mark: str, most: int) -> dict[str, Any]:
        """What there is now; only ``mark`` where that is what it was. ``most`` is how many runs are to be shown."""
        with self._looking:  # another page may look, too
            return self._looked(mark, most)

    def _looked(self, mark: str, most: int) -> dict[str, Any]:
        try:
            found = self._look()
        except StoreBusy:
            if mark:
                return {"mark": mark, "busy": True}
            raise
        with self._lock:
            going = sorted((run_id, one["state"]) for run_id, one in self._going.items())
        shown = [*map(_state, found), going, sorted(agent_registry.notebook_agents()), self.assignee, self.by, most]
        now = str(hash(repr(shown)))
        return {"mark": now} if now == mark else {"mark": now, **self._view(found, min(most, MOST))}

    @call
    def narrow(self, assignee: str) -> None:
        """Show what one person is to answer, named by a key; everything where that is empty."""
        self.assignee = id_of(assignee) if assignee else None
        self._seen = {}

    @call
    def clear(self) -> None:
        """Take what is answered off the screen."""
        with self._lock:
            self._going = {run_id: one for run_id, one in self._going.items() if one["state"] == "going"}
        self._seen = {name: one for name, one in self._seen.items() if requirements.is_waiting(one)}

    @call
    def conversation(self, key: str) -> str:
        """What was said in a run, as markup."""
        return run_html(self.store.get_run(id_of(key)))

    def _look(self) -> list[Requirement]:
        """What paused runs wait or waited for, and what else has been on the screen; oldest first."""
        found = self.store.requirements(user_id=self.user_id, status=None, run_status="PAUSED")
        here = {one.requirement_id: one for one in found}
        for run_id in {
            one.run_id for name, one in self._seen.items() if name not in here and requirements.is_waiting(one)
        }:
            # Answered, and its run gone on with elsewhere.
            after = self.store.requirements(run_id=run_id, status=None)
            self._seen |= {one.requirement_id: one for one in after if one.requirement_id in self._seen}
        self._seen |= {name: one for name, one in here.items() if name in self._seen}
        every = here | self._seen
        return sorted(every.values(), key=lambda one: (one.created_at is None, one.created_at, one.requirement_id))

    def _view(self, found: list[Requirement], most: int) -> dict[str, Any]:
        places = RunIndex(self.store, (one.session_id for one in found))
        self._places = places
        by_run: dict[str, list[Requirement]] = {}
        for one in found:
            top = places.top_level(one.run_id)
            by_run.setdefault(top.run_id if top else str(one.run_id), []).append(one)
        groups = {run_id: self._of_interest(run_id, of_run) for run_id, of_run in by_run.items()}
        groups = {run_id: of_run for run_id, of_run in groups.items() if of_run}
        shown = dict(list(groups.items())[:most])
        names = short_ids(self.store, [one for of_run in shown.values() for one in of_run])
        self._seen |= {one.requirement_id: one for of_run in shown.values() for one in of_run}
        people = {one.assignee for one in found if one.assignee and requirements.is_waiting(one)}
        return {
            "runs": [self._run(run_id, of_run, by_run[run_id], names) for run_id, of_run in shown.items()],
            "more": len(groups) - len(shown),
            "left": sum(requirements.is_waiting(one) for of_run in groups.values() for one in of_run),
            "assignee": key_of(self.assignee) if self.assignee else "",
            "people": [
                {"key": key_of(name), "name": formatting.cut(name, _NAME)}
                for name in sorted(people | ({self.assignee} if self.assignee else set()))
            ],
            "by": formatting.visible(self.by or ""),
        }

    def _of_interest(self, run_id: str, of_run: list[Requirement]) -> list[Requirement]:
        """Of what a run waits for: what fits the filter, and what was on the screen before.

        Answers that only wait for the run to go on are shown, too: of its latest pause.
        """
        mine = [one for one in of_run if self.assignee in (None, one.assignee) or one.requirement_id in self._seen]
        if not any(map(requirements.is_waiting, of_run)) and run_id not in self._going:
            return latest_pause(mine)
        return [one for one in mine if requirements.is_waiting(one) or one.requirement_id in self._seen]

    def _run(self, run_id: str, shown: list[Requirement], every: list[Requirement], names: Any) -> dict[str, Any]:
        place = self._places.find(run_id) if self._places else None
        variable = agent_registry.find_variable(place.owner) if place else None
        left = sum(map(requirements.is_waiting, every))
        with self._lock:
            going = self._going.get(run_id)
        status = place.status if place else None
        return {
            "key": key_of(run_id),
            "place": formatting.cut(str(place), _LINE) if place else formatting.cut(str(every[0].session_id), _LINE),
            "agent": formatting.cut((place and place.owner) or "", _LINE),
            "asked": formatting.cut((place and place.input) or "", _LINE),
            "cards": [self.card(one, names[one.requirement_id]) for one in shown],
            "left": left,
            "elsewhere": left - sum(map(requirements.is_waiting, shown)),
            "ready": not left and status == "PAUSED" and going is None,
            "status": "" if status in (None, "PAUSED") else formatting.status(status),
            "here": variable or "",
            "line": self._continue_line(place, variable) if place else "",
            "going": going,
        }

    def _continue_line(self, place: RunEntry, variable: str | None) -> str:
        return self.line("continue", str(place), *(["--agent", variable] if variable else []))

    # What is done -----------------------------------------------------------------------------------------------------

    def owner_of(self, one: Requirement) -> str | None:
        """The agent whose run waits; of a member's run, the member."""
        place = self._places.find(one.run_id) if self._places else None
        return place.owner if place else None

    def answered(self, done: Requirement) -> None:
        """It stays on the screen as it is now."""
        self._seen[done.requirement_id] = done

    @call(slow=True)
    def go_on(self, key: str) -> dict[str, Any]:
        """Go on with a run by the notebook's agent, in the background."""
        from kern_nb.runtime import background, events

        run_id = id_of(key)
        place = self._places.find(run_id) if self._places else None
        owner = form.owner_here(place.owner) if place else None
        if place is None or owner is None:
            raise BadUsage("The run's agent is not among the notebook's variables.", "Make it, then look again.")
        if not resume.is_same_store(owner.store, self.store):
            raise BadUsage(f"{owner!r} keeps its runs in {owner.store.url}.", "Use the run's store: %kern use NAME")
        with self._lock:
            if self._going.get(run_id, {}).get("state") == "going":
                return {}
            self._going[run_id] = {"state": "going"}
        work = background.proceed(owner, run_id, session_id=place.session_id)
        background.Live(work, events.ignore, partial(self._ended, run_id))
        return {
            "said": f"Going on with {place}.",
            "line": self._continue_line(place, agent_registry.find_variable(place.owner)),
        }

    def _ended(self, run_id: str, run: Run | None, error: BaseException | None) -> None:
        """A run that was gone on with has ended, or waits again."""
        with self._lock:
            if run is not None and run.status == "PAUSED":
                del self._going[run_id]
            else:
                self._going[run_id] = _outcome(run, error)
        self.tell({"event": "changed"})


def _state(one: Requirement) -> tuple[Any, ...]:
    """What of a requirement changes."""
    who = (one.assignee, one.claimed_by, one.resolved_by)
    return one.requirement_id, one.status, requirements.is_waiting(one), one.note, *who


def _outcome(run: Run | None, error: BaseException | None) -> dict[str, Any]:
    if error is not None:
        return {"state": "failed", "error": told(error)}
    if run is None:
        return {"state": "stopped"}
    answer = text_of(run.output) or ("" if run.output is None else formatting.pretty(run.output))
    return {"state": "ended", "status": formatting.status(run.status), **transcript_data.beginning(answer, _ANSWER)}
