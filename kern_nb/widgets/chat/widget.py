"""`chat`: talk to an agent in a cell's output. The conversation is the stored session."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage, OwnerMismatch, RunNotFound, SessionNotFound, StoreBusy
from kern_nb.operations import agent_registry
from kern_nb.operations.run_index import RunIndex
from kern_nb.records import Requirement, Run, Session
from kern_nb.text import formatting
from kern_nb.views import requirements
from kern_nb.views.transcript import Conversation, conversation_html, fork
from kern_nb.widgets import media, transcript_data
from kern_nb.widgets.base import decode_key, encode_key
from kern_nb.widgets.chat import run_data
from kern_nb.widgets.chat.live_run import LiveRun
from kern_nb.widgets.requirements.actions import RequirementActions
from kern_nb.widgets.rpc import call, error_payload

if TYPE_CHECKING:
    from kern_nb.runtime.run_modes import RunFunction
    from kern_nb.runtime.session_owner import SessionOwner

MAX_LENGTH = 1_000_000  # the most characters of a message
_NAME = 80


def chat(
    agent: SessionOwner | str, session_id: str | None = None, *, user_id: str | None = None, by: str | None = None
) -> Chat:
    """Chat with an agent, a team or a workflow in the cell's output.

    Messages are stored immediately, so that the session can be continued in another notebook. Other cells can run while
    the agent responds. A requirement of a tool is resolved in place, and the run resumes.

    Args:
        agent: The agent, or its variable, id or name.
        session_id: The session, which may be new; None for the agent's own, else a new one.
        user_id: The owner of the session; None for the agent's user.
        by: Who resolves requirements; None for the login name.

    Returns:
        A widget.

    Raises:
        BadUsage: agent is not an agent, a team or a workflow.
        OwnerMismatch: the session belongs to another user.

    Example:
        >>> from kern_nb import Agent, chat
        >>> from kern_nb.db import InMemoryDb
        >>> from kern_nb.models.scripted import ScriptedModel
        >>> agent = Agent(model=ScriptedModel(["Hello."]), db=InMemoryDb(), id="greeter")
        >>> chat(agent, "conversation_123")
        <Chat with greeter in session conversation_123>
    """
    owner: Any = agent_registry.find(agent) if isinstance(agent, str) else agent
    if not agent_registry.is_agent(owner):
        agent_registry.refuse_attached(owner)
        raise BadUsage(f"agent must be an agent, a team or a workflow, got {agent!r}.", agent_registry.CREATE_HINT)
    return Chat(owner, session_id, user_id=user_id, by=by)


class Chat(RequirementActions, script="chat", parts=("texts", "watch", "asked")):
    """A conversation with an agent.

    Attributes:
        agent: The agent.
        session_id: The session that is shown and continued.
        user_id: The owner of the session.
    """

    def __init__(
        self, agent: SessionOwner, session_id: str | None, *, user_id: str | None = None, by: str | None = None
    ) -> None:
        self.agent = agent
        self.session_id = session_id or agent.session_id or ""
        self.user_id = user_id or agent.user_id
        self._lock = threading.Lock()
        self._live: LiveRun | None = None
        self._failure: dict[str, Any] | None = None
        self._last_index = -1
        self._n_changes = 0
        super().__init__(agent.store, by=by)
        if not self.session_id:
            self.session_id = agent._session(None)  # noqa: SLF001 - within the package
        self._session()

    def __repr__(self) -> str:
        agent, session = (formatting.truncate(name, _NAME) for name in (self.agent.id, self.session_id))
        return f"<Chat with {agent} in session {session}>"

    def fallback_html(self) -> str:
        """Render the latest runs as a transcript."""
        session = self._session()
        runs = [] if session is None else run_data.load_latest(self.store, self.session_id)
        return conversation_html(Conversation(session or Session(session_id=self.session_id), runs))

    # The view ---------------------------------------------------------------------------------------------------------

    @call
    def poll(self, mark: str) -> dict[str, Any]:
        """Return the latest runs and the ``mark`` of the state; only the mark if it is unchanged."""
        try:
            new_mark = self._mark()
            return {"mark": new_mark} if new_mark == mark else {"mark": new_mark, **self._view()}
        except StoreBusy:
            if mark:
                return {"mark": mark}
            raise

    @call
    def earlier(self, before: int) -> dict[str, Any]:
        """Return the runs before a run."""
        return self._run_page(self._session(), before)

    @call
    def text(self, run_index: int, position: int, part: transcript_data.Part, number: int) -> dict[str, Any]:
        """Return a text in full."""
        session, run = self._load_run(run_index)
        return transcript_data.full_text(session, run, position, part, number)

    @call
    def picture(self, run_index: int, position: int, number: int, tool_call: int | None) -> dict[str, str]:
        """Return an image of a message, or of the result of one of its calls."""
        session, run = self._load_run(run_index)
        return media.load_picture(transcript_data.stored_content(session, run, position, tool_call), number, self.store)

    def _session(self, session_id: str | None = None) -> Session | None:
        """Load the current session, or another one, without its runs; None if it does not exist yet."""
        name = session_id or self.session_id
        session = self.store.get_session(name, runs=False)
        if session is not None and self.user_id is not None and session.user_id not in (None, self.user_id):
            raise OwnerMismatch(f"Session {name!r} belongs to another user.", "Pass its user_id, or another id.")
        return session

    def _mark(self) -> str:
        """Return a hash of the state; a live run reports its changes itself."""
        with self._lock:
            live, n_changes = self._live, self._n_changes
        state: list[Any] = [self.session_id, n_changes]
        session = None if live else self._session()
        if session is not None:
            first = run_data.newest_index(self.store, self.session_id) if self._last_index < 0 else self._last_index
            runs = self.store.session_runs(self.session_id, start=first, limit=run_data.PAGE_RUNS)
            self._last_index = max((run.run_index or 0 for run in runs if run.parent_run_id is None), default=first)
            state.append(session.updated_at)
            for run in runs:
                if (run.run_index or 0) < self._last_index:
                    continue
                needed = [(r.status, r.assignee, r.claimed_by, requirements.is_pending(r)) for r in run.requirements]
                state.append((run.run_id, run.status, len(run.messages), needed))
        return str(hash(repr(state)))

    def _view(self) -> dict[str, Any]:
        with self._lock:
            live, failure = self._live, self._failure
        session = self._session()
        page = self._run_page(session, None)
        if failure and any(_has_failure(item, failure) for item in page["turns"]):
            failure = None
        parent = session.parent_session_id if session else None
        name = formatting.truncate(parent or "", _NAME)
        return {
            **page,
            "agent": formatting.truncate(self.agent.name or self.agent.id, _NAME),
            "session": formatting.escape_controls(self.session_id),
            "title": formatting.truncate((session and session.session_name) or "", _NAME),
            "fork": formatting.single_line(fork(session)) if session else "",
            "parent": None if parent is None else {"key": encode_key(parent), "name": name},
            "live": None if live is None else live.view(),
            "failed": failure,
        }

    def _run_page(self, session: Session | None, before: int | None) -> dict[str, Any]:
        """Return the latest runs, or those before a run; if there are earlier ones, the index of the first."""
        if session is None:
            return {"turns": [], "earlier": None}
        runs = run_data.load_latest(self.store, self.session_id, before)
        items = [item for item in map(partial(self._run_item, session), runs) if item is not None]
        first = min((run.run_index or 0 for run in runs), default=0)
        return {"turns": items, "earlier": first if first > 0 and len(runs) >= run_data.PAGE_RUNS else None}

    def _run_item(self, session: Session, run: Run) -> dict[str, Any] | None:
        with self._lock:
            live = self._live
        if live is not None and run.run_id == live.run_id:
            return live.before  # its output is sent to the script
        return run_data.run_item(session, run, self.store, self.form_data)

    def _load_run(self, run_index: int) -> tuple[Session, Run]:
        session = self._session()
        runs = [] if session is None else self.store.session_runs(self.session_id, start=run_index, limit=1)
        if session is None or not runs:
            raise RunNotFound(f"Run {self.session_id}/{run_index} no longer exists.", "Open the chat again.")
        return session, runs[0]

    # Actions ----------------------------------------------------------------------------------------------------------

    @call(slow=True)
    def say(self, text: str) -> None:
        """Send a message to the agent, which responds in the background, unless a response is in progress."""
        from kern_nb.runtime import background

        if not text.strip():
            raise BadUsage("The message must not be empty.", "Enter a message.")
        if len(text) > MAX_LENGTH:
            raise BadUsage(f"A message has at most {MAX_LENGTH:,} characters, got {len(text):,}.", "Shorten it.")
        work = partial(background.prepare_run, self.agent, text, session_id=self.session_id, user_id=self.user_id)
        self._start(LiveRun(self.tell, text), work)

    @call
    def stop(self) -> None:
        """Stop the response; its run is stored as CANCELLED."""
        with self._lock:
            live = self._live
            if live is not None:
                live.is_stopping = True
        if live is not None and live.handle is not None:
            live.handle.stop()

    @call(slow=True)
    def resume(self, key: str) -> dict[str, Any]:
        """Resume a run whose requirements are resolved, or that failed, was stopped or was interrupted."""
        run = self.store.get_run(decode_key(key))
        self._resume(run)
        variable = agent_registry.find_variable(self.agent.id)
        return {"line": self.continue_line(f"{run.session_id}/{run.run_index}", variable)}

    def _resume(self, run: Run) -> None:
        from kern_nb.runtime import background

        if run.session_id != self.session_id or run.parent_run_id is not None:
            raise BadUsage(f"Run {run.session_id}/{run.run_index} is not of this session.", "Resume it there.")
        session, _ = self._load_run(run.run_index or 0)
        before = self._run_item(session, run)
        if before is not None:
            before |= {"cards": [], "ready": False, "again": False, "ends": []}
        live = LiveRun(self.tell, before=before)
        live.run_id = run.run_id
        self._start(
            live,
            lambda: background.prepare_resume(self.agent, run.run_id, session_id=self.session_id, user_id=self.user_id),
        )

    def _start(self, live: LiveRun, make_work: Callable[[], RunFunction]) -> None:
        from kern_nb.runtime import background

        if not agent_registry.is_same_store(self.agent.store, self.store):
            message = f"{self.agent!r} now stores its runs in {self.agent.store.url}, this chat is in {self.store.url}."
            raise BadUsage(message, "Use that store again, or open a new chat.")
        with self._lock:
            self._check_idle()
            self._live = live
            is_unsent = self._failure is not None and self._failure["asked"] and self._failure["run"] is None
            if live.prompt or not is_unsent:  # a message that no run has is kept while another run is resumed
                self._failure = None
            self._n_changes += 1
        try:
            live.handle = background.BackgroundRun(make_work(), live.emit, partial(self._finish, live))
        except BaseException as error:
            self._finish(live, None, error)
            raise
        if live.is_stopping:  # stopped before there was a handle
            live.handle.stop()

    def _check_idle(self) -> None:
        if self._live is not None:
            raise BadUsage("A response is in progress.", "Wait for it, or stop it.")

    def _finish(self, live: LiveRun, run: Run | None, error: BaseException | None) -> None:
        """Handle the end of a run; called in the thread of the runs."""
        live.flush()
        with self._lock:
            if error is not None:
                self.last_error = error
                run_key = None if live.run_id is None else encode_key(live.run_id)
                prompt = formatting.escape_controls(live.prompt)
                self._failure = {"asked": prompt, "run": run_key, "error": error_payload(error)}
            self._live = None
            self._n_changes += 1
        self.tell({"event": "ended"})

    def owner_of(self, requirement: Requirement) -> str | None:
        """Return the id of the agent."""
        return self.agent.id

    def after_action(self, requirement: Requirement) -> None:
        """Resume the run once its last requirement is resolved, unless another run is in progress."""
        with self._lock:
            if self._live is not None or requirement.run_id is None:
                return
        top_level = RunIndex(self.store, [requirement.session_id]).top_level(requirement.run_id)
        run = self.store.get_run(top_level.run_id if top_level else requirement.run_id)
        if run.status == "PAUSED" and not any(map(requirements.is_pending, run.requirements)):
            self._resume(run)

    @call
    def branch(self, key: str) -> dict[str, Any]:
        """Branch after a run; the chat stays in its session."""
        run = self.store.get_run(decode_key(key))
        branch = self.store.branch(self.session_id, after=run.run_index)
        return {
            "key": encode_key(branch.session_id),
            "name": formatting.escape_controls(branch.session_id),
            "line": self.line("branch", f"{self.session_id}/{run.run_index}"),
        }

    @call
    def move(self, key: str) -> None:
        """Switch to another session of the user, such as a branch or the parent, unless a response is in progress."""
        session_id = decode_key(key)
        if self._session(session_id) is None:
            raise SessionNotFound(f"Session {session_id!r} no longer exists.", "See %kern sessions.")
        with self._lock:
            self._check_idle()
            self.session_id, self._failure, self._last_index = session_id, None, -1


def _has_failure(item: dict[str, Any], failure: dict[str, Any]) -> bool:
    """Return whether a run shows the failure itself; a run that was released again has its previous error."""
    errors = [formatting.single_line(end["text"])[:_NAME] for end in item["ends"] if end["kind"] == "error"]
    return item["key"] == failure["run"] and any(error in failure["error"]["message"] for error in errors)
