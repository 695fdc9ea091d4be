"""`chat`: talk to an agent in a cell's output. The conversation is the session, wherever its runs were made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage, OwnerMismatch, RunNotFound, SessionNotFound, StoreBusy
from kern_nb.operations import agent_registry, resume
from kern_nb.records import Requirement, Run, Session
from kern_nb.text import formatting
from kern_nb.views import requirements
from kern_nb.views.transcript import Conversation, conversation_html, fork
from kern_nb.widgets import media, transcript_data
from kern_nb.widgets.base import id_of, key_of
from kern_nb.widgets.chat import run_data
from kern_nb.widgets.chat.live_run import Talk
from kern_nb.widgets.requirements.actions import Answering
from kern_nb.widgets.rpc import call, told

if TYPE_CHECKING:
    from kern_nb.runtime.session_owner import SessionOwner, Work

LONGEST = 1_000_000
"""The most characters of a message."""

_NAME = 80


def chat(
    agent: SessionOwner | str, session_id: str | None = None, *, user_id: str | None = None, by: str | None = None
) -> Chat:
    """Talk to an agent, a team or a workflow in the cell's output.

    What is said is stored as it is said; opened again, or in another notebook, the session is what was said. While the
    agent answers, other cells run. A tool that waits for a person is answered in place, and the run goes on.

    Args:
        agent: The agent, or its variable, id or name.
        session_id: The session, which may be new; the agent's own where None, or a new one where it has none.
        user_id: Whose session it is; the agent's user where None.
        by: Who answers what runs wait for; the login name where None.

    Raises:
        BadUsage: it is no agent.
        OwnerMismatch: the session is another user's.
    """
    found: Any = agent_registry.find(agent) if isinstance(agent, str) else agent
    if not hasattr(found, "continue_run"):
        raise BadUsage(f"{agent!r} is no agent.", agent_registry.CREATE_HINT)
    return Chat(found, session_id, user_id=user_id, by=by)


class Chat(Answering, script="chat", parts=("texts", "watch", "asked")):
    """A conversation with an agent.

    Attributes:
        agent: Who answers.
        session_id: The session that is shown, and gone on in.
        user_id: Whose session it is.
    """

    def __init__(
        self, agent: SessionOwner, session_id: str | None, *, user_id: str | None = None, by: str | None = None
    ) -> None:
        self.agent = agent
        self.session_id = session_id or agent.session_id or ""
        self.user_id = user_id or agent.user_id
        self._lock = threading.Lock()
        self._talk: Talk | None = None
        self._failed: dict[str, Any] | None = None
        self._last = -1
        self._changes = 0
        super().__init__(agent.store, by=by)
        if not self.session_id:
            self.session_id = agent._session(None)  # noqa: SLF001 - it is one of us
        self._session()

    def __repr__(self) -> str:
        """Who talks where."""
        return f"<Chat with {formatting.cut(self.agent.id, _NAME)} in session {formatting.cut(self.session_id, _NAME)}>"

    def still(self) -> str:
        """The latest turns as a transcript."""
        session = self._session()
        if session is None:
            return conversation_html(Conversation(Session(session_id=self.session_id), []))
        runs = run_data.latest(self.store, self.session_id)
        return conversation_html(Conversation(session, [run for run in runs if run.parent_run_id is None]))

    # What is shown ----------------------------------------------------------------------------------------------------

    @call
    def look(self, mark: str) -> dict[str, Any]:
        """The conversation's latest turns; only ``mark`` where that is what it was."""
        try:
            now = self._mark()
            return {"mark": now} if now == mark else {"mark": now, **self._view()}
        except StoreBusy:
            if mark:
                return {"mark": mark}
            raise

    @call
    def earlier(self, before: int) -> dict[str, Any]:
        """The turns before a run."""
        session = self._session()
        return {"turns": [], "earlier": None} if session is None else self._turns(session, before)

    @call
    def text(self, run_index: int, place: int, part: transcript_data.Part, number: int) -> dict[str, Any]:
        """A text in full."""
        session, run = self._found(run_index)
        return transcript_data.whole(session, run, place, part, number)

    @call
    def picture(self, run_index: int, place: int, number: int, tool_call: int | None) -> dict[str, str]:
        """A picture of a message, or of the result of one of its calls."""
        session, run = self._found(run_index)
        return media.picture(transcript_data.held(session, run, place, tool_call), number, self.store)

    def _session(self, session_id: str | None = None) -> Session | None:
        """The session that is shown, or another one, without its runs; None where nothing was said yet.

        Raises:
            OwnerMismatch: it is another user's.
        """
        name = session_id or self.session_id
        found = self.store.get_session(name, runs=False)
        if found is not None and self.user_id is not None and found.user_id not in (None, self.user_id):
            raise OwnerMismatch(f"Session {name!r} is another user's.", "Give its user_id, or another id.")
        return found

    def _mark(self) -> str:
        """What changes when something changes: while the agent answers it tells of that itself."""
        with self._lock:
            talk, changes = self._talk, self._changes
        shown: list[Any] = [self.session_id, changes]
        session = None if talk else self._session()
        if session is not None:
            first = run_data.newest(self.store, self.session_id) if self._last < 0 else self._last
            runs = self.store.session_runs(self.session_id, start=first, limit=run_data.TURNS)
            self._last = max((run.run_index or 0 for run in runs if run.parent_run_id is None), default=first)
            shown.append(session.updated_at)
            for run in runs:
                asked = [
                    (one.status, one.assignee, one.claimed_by, requirements.is_waiting(one)) for one in run.requirements
                ]
                if (run.run_index or 0) >= self._last:
                    shown.append((run.run_id, run.status, len(run.messages), asked))
        return str(hash(repr(shown)))

    def _view(self) -> dict[str, Any]:
        with self._lock:
            talk, failed = self._talk, self._failed
        session = self._session()
        shown = {"turns": [], "earlier": None} if session is None else self._turns(session, None)
        if failed and any(_tells(turn, failed) for turn in shown["turns"]):
            failed = None
        parent = session.parent_session_id if session else None
        return {
            **shown,
            "agent": formatting.cut(self.agent.name or self.agent.id, _NAME),
            "session": formatting.visible(self.session_id),
            "title": formatting.cut((session and session.session_name) or "", _NAME),
            "fork": formatting.one_line(fork(session)) if session else "",
            "parent": None if parent is None else {"key": key_of(parent), "name": formatting.cut(parent, _NAME)},
            "live": None if talk is None else talk.view(),
            "failed": failed,
        }

    def _turns(self, session: Session, before: int | None) -> dict[str, Any]:
        """The last turns, or the last ones before a run; where there are more, the index of the first that is shown."""
        runs = [run for run in run_data.latest(self.store, self.session_id, before) if run.parent_run_id is None]
        told = [turn for turn in map(partial(self._turn, session), runs) if turn is not None]
        first = min((run.run_index or 0 for run in runs), default=0)
        return {"turns": told, "earlier": first if first > 0 and len(runs) >= run_data.TURNS else None}

    def _turn(self, session: Session, run: Run) -> dict[str, Any] | None:
        with self._lock:
            talk = self._talk
        if talk is not None and run.run_id == talk.run_id:
            return talk.before  # what is said in it now, the script is told
        return run_data.turn(session, run, self.store, self.card)

    def _found(self, run_index: int) -> tuple[Session, Run]:
        session = self._session()
        runs = [] if session is None else self.store.session_runs(self.session_id, start=run_index, limit=1)
        if session is None or not runs:
            raise RunNotFound(f"There is no run {self.session_id}/{run_index} any more.", "Open the chat again.")
        return session, runs[0]

    # What is done -----------------------------------------------------------------------------------------------------

    @call(slow=True)
    def say(self, text: str) -> None:
        """Say something to the agent; it answers in the background.

        Raises:
            BadUsage: an answer is under way, or there is nothing to say.
        """
        from kern_nb.runtime import background

        if not text.strip():
            raise BadUsage("There is nothing to say.", "Write something.")
        if len(text) > LONGEST:
            raise BadUsage(f"The message has {len(text):,} characters.", f"The most are {LONGEST:,}.")
        begin = partial(background.begin, self.agent, text, session_id=self.session_id, user_id=self.user_id)
        self._begin(Talk(self.tell, text), begin)

    @call
    def stop(self) -> None:
        """Stop the answer that is under way; its run is stored as CANCELLED."""
        with self._lock:
            talk = self._talk
            if talk is not None:
                talk.is_stopping = True
        if talk is not None and talk.live is not None:
            talk.live.stop()

    @call(slow=True)
    def go_on(self, key: str) -> dict[str, Any]:
        """Go on with a run that has its answers, or that failed, was stopped or interrupted."""
        run = self.store.get_run(id_of(key))
        self._go_on(run)
        variable = agent_registry.find_variable(self.agent.id)
        named = ["--agent", variable] if variable else []
        return {"line": self.line("continue", f"{run.session_id}/{run.run_index}", *named)}

    def _go_on(self, run: Run) -> None:
        from kern_nb.runtime import background

        if run.session_id != self.session_id or run.parent_run_id is not None:
            raise BadUsage(f"Run {run.session_id}/{run.run_index} is not of this session.", "Go on with it there.")
        session, _ = self._found(run.run_index or 0)
        before = self._turn(session, run)
        if before is not None:
            before |= {"cards": [], "ready": False, "again": False, "ends": []}
        talk = Talk(self.tell, before=before)
        talk.run_id = run.run_id
        self._begin(
            talk, lambda: background.proceed(self.agent, run.run_id, session_id=self.session_id, user_id=self.user_id)
        )

    def _begin(self, talk: Talk, make: Callable[[], Work]) -> None:
        from kern_nb.runtime import background

        if not resume.is_same_store(self.agent.store, self.store):
            raise BadUsage(
                f"{self.agent!r} now keeps its runs in {self.agent.store.url}, and this chat is of {self.store.url}.",
                "Use that store again, or open a new chat.",
            )
        with self._lock:
            if self._talk is not None:
                raise BadUsage("An answer is under way.", "Wait for it, or stop it.")
            self._talk = talk
            self._failed = None
            self._changes += 1
        try:
            talk.live = background.Live(make(), talk.emit, partial(self._ended, talk))
        except BaseException as error:
            self._ended(talk, None, error)
            raise
        if talk.is_stopping:  # before there was anything to stop
            talk.live.stop()

    def _ended(self, talk: Talk, run: Run | None, error: BaseException | None) -> None:
        """The answer is there, or will not come; called in the runs' thread."""
        talk.pass_on()
        with self._lock:
            if error is not None:
                self.last_error = error
                place = None if talk.run_id is None else key_of(talk.run_id)
                self._failed = {"asked": formatting.visible(talk.asked), "run": place, "error": told(error)}
            self._talk = None
            self._changes += 1
        self.tell({"event": "ended"})

    def owner_of(self, one: Requirement) -> str | None:
        """The agent that is talked to."""
        return self.agent.id

    def answered(self, done: Requirement) -> None:
        """After the last answer the run goes on, if nothing else is under way."""
        with self._lock:
            if self._talk is not None or done.run_id is None:
                return
        run = self.store.get_run(done.run_id)
        while run.parent_run_id is not None:  # of a member
            run = self.store.get_run(run.parent_run_id)
        if run.status == "PAUSED" and not any(map(requirements.is_waiting, run.requirements)):
            self._go_on(run)

    @call
    def branch(self, key: str) -> dict[str, Any]:
        """Branch after a turn; the new session, in which nothing is said before somebody goes there."""
        run = self.store.get_run(id_of(key))
        made = self.store.branch(self.session_id, after=run.run_index)
        return {
            "key": key_of(made.session_id),
            "name": formatting.visible(made.session_id),
            "line": self.line("branch", f"{self.session_id}/{run.run_index}"),
        }

    @call
    def move(self, key: str) -> None:
        """Go on in another session: a branch, or the one that this is a branch of.

        Raises:
            SessionNotFound, OwnerMismatch: there is none, or it is another user's.
            BadUsage: an answer is under way.
        """
        session_id = id_of(key)
        if self._session(session_id) is None:
            raise SessionNotFound(f"There is no session {session_id!r} any more.", "See %kern sessions.")
        with self._lock:
            if self._talk is not None:
                raise BadUsage("An answer is under way.", "Wait for it, or stop it.")
            self.session_id, self._failed, self._last = session_id, None, -1


def _tells(turn: dict[str, Any], failed: dict[str, Any]) -> bool:
    """Whether a turn says what failed: the run is stored with that error. One that was given back has its old one."""
    errors = [formatting.one_line(one["text"])[:_NAME] for one in turn["ends"] if one["kind"] == "error"]
    return turn["key"] == failed["run"] and any(one in failed["error"]["message"] for one in errors)
