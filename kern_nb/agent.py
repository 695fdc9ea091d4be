"""`Agent`: a model with instructions and tools, whose every run is kept in a session.

pydantic-ai runs the model and the tools; `kern_nb.runtime` keeps the session. Making an agent imports neither.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from kern_nb import models
from kern_nb._lazy import lazy_names
from kern_nb.errors import BadUsage
from kern_nb.runtime.session_owner import SessionOwner, require_state

if TYPE_CHECKING:
    from pydantic_ai import Agent as PydanticAgent

    from kern_nb.db import SessionStore
    from kern_nb.records import Run, Session, SessionSummary, SessionType
    from kern_nb.runtime.context import RunContext
    from kern_nb.runtime.events import Emit
    from kern_nb.runtime.history import HistoryOptions
    from kern_nb.runtime.recorder import Storage
    from kern_nb.runtime.session_owner import Work
    from kern_nb.runtime.summaries import SessionSummaryManager
    from kern_nb.runtime.tools import Tool, handoff, tool

__all__ = ["Agent", "RunContext", "SessionSummaryManager", "Tool", "handoff", "tool"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "kern_nb.runtime.context": ["RunContext"],
        "kern_nb.runtime.summaries": ["SessionSummaryManager"],
        "kern_nb.runtime.tools": ["Tool", "handoff", "tool"],
    },
)

_INSTRUCTIONS = "Give a text, several, or a function that gives one."

Instructions = str | Sequence[str] | Callable[..., str | Awaitable[str]] | None


def _require_counts(given: Mapping[str, Any]) -> None:
    """Raises BadUsage for what is no number, or a negative one."""
    for name, value in given.items():
        if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0):
            raise BadUsage(f"{name}={value!r} is no count.", f"Give a number of 0 or more: {name}=3.")


def _checked(tools: Sequence[Any]) -> list[Any]:
    """Tools as far as they can be judged without pydantic-ai.

    Raises:
        BadUsage: something is no tool, or two have one name.
    """
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise BadUsage(f"tools={tools!r} are no tools.", "Give a list of functions: tools=[search, refund].")
    names: set[str] = set()
    for one in tools:
        if not callable(one) and not hasattr(one, "get_tools"):
            raise BadUsage(f"{one!r} is no tool.", "Give a function, tool(function, ...) or a pydantic-ai toolset.")
        name = getattr(one, "name", None) or getattr(one, "__name__", None)
        if callable(one) and isinstance(name, str):
            if name in names:
                raise BadUsage(f"Two tools are called {name!r}.", "Give one another name: tool(fn, name=...).")
            names.add(name)
    return list(tools)


def _asked(function: Callable[..., Any], context: RunContext) -> Any:
    """Call a function for instructions. Its parameters are filled in by name, as a tool's are; any other is the run."""
    known = context.by_name()
    first: list[Any] = []
    named: dict[str, Any] = {}
    for one in inspect.signature(function).parameters.values():
        has_default = one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) or one.default is not one.empty
        if has_default and one.name not in known:
            continue
        value = known.get(one.name, context)
        if one.kind is one.POSITIONAL_ONLY:
            first.append(value)
        else:
            named[one.name] = value
    return function(*first, **named)


class Agent(SessionOwner):
    """An agent that remembers.

    One definition serves any number of sessions, users and threads at once; what belongs to a session is in the store.
    ``run`` takes, beside the input, ``session_id``, ``user_id``, ``session_state`` (which goes before what is stored,
    which goes before the agent's own) and files: ``images``, ``audio``, ``videos``, ``files`` (bytes, paths or URLs).

    Args:
        model: A name (``"openai:gpt-5.2"``), one of `kern_nb.models`, or a model of pydantic-ai's; where None, that of
            the environment's KERN_MODEL, else gpt-5.2 behind the Responses API.
        db: The store, or a path or URL of one; the attached one where None, else one in memory.
        session_id: The session it goes on in; where None, the first run makes one.
        user_id: Whose sessions they are.
        session_state: The state of a new session, and of keys that a stored one lacks.
        instructions: A text, several, or a function (of ``run_context`` or ``session_state``, if it wants these) that
            gives one.
        role: What it is good for, in a sentence: what the leader of a team is told of it.
        tools: Functions, what `tool` made of them, and toolsets of pydantic-ai's (MCP servers, for example).
        name: A name for people.
        id: The agent_id of its sessions; made of the name where None.
        add_history_to_context: Tell the model of the session's earlier runs.
        num_history_runs: Of so many of the latest.
        num_history_messages: Of so many of the latest messages instead.
        history_token_budget: About so many tokens of history at most: older runs are told by the summary instead.
        read_chat_history: Give the model a tool that reads the session's history.
        search_past_sessions: Give the model a tool that searches the same user's other sessions.
        num_past_sessions_to_search: So many of the latest.
        enable_session_summaries: Keep a summary of each session, made after a run without delaying its answer.
        add_session_summary_to_context: Tell the model the summary.
        session_summary_manager: Who makes the summaries, with which model and prompt; by itself it enables them.
        store_media: Keep pictures and other files, each once, by its hash.
        store_tool_messages: Keep what tools gave. Without it no result is kept anywhere; names and arguments are.
        store_history_messages: Keep with each run a copy of the history the model was told.
        cache_session: Keep a session that was read in memory until this agent changes it; others' changes are not seen.
        overwrite_db_session_state: Let the state that is given replace what is stored.
        timeout_s: The most seconds a run may take; it then ends with an error.
        max_requests: How often a run may ask the model, so that one that goes in circles ends; None: without end.
    """

    session_type: ClassVar[SessionType] = "agent"

    def __init__(
        self,
        model: Any = None,
        *,
        db: SessionStore | str | Path | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
        instructions: Instructions = None,
        tools: Sequence[Any] | None = None,
        role: str | None = None,
        name: str | None = None,
        id: str | None = None,
        add_history_to_context: bool = False,
        num_history_runs: int = 3,
        num_history_messages: int | None = None,
        history_token_budget: int | None = None,
        read_chat_history: bool = False,
        search_past_sessions: bool = False,
        num_past_sessions_to_search: int = 10,
        enable_session_summaries: bool = False,
        add_session_summary_to_context: bool = False,
        session_summary_manager: SessionSummaryManager | None = None,
        store_media: bool = True,
        store_tool_messages: bool = True,
        store_history_messages: bool = False,
        cache_session: bool = False,
        overwrite_db_session_state: bool = False,
        timeout_s: float | None = None,
        max_requests: int | None = 50,
    ) -> None:
        self._given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__(db=db, session_id=session_id, user_id=user_id, name=name, id=id)
        self.model = model
        self.default_state = require_state(session_state)
        self.instructions = instructions
        self.role = role
        self.overwrite_db_session_state = overwrite_db_session_state
        self.timeout_s = timeout_s
        self.max_requests = max_requests
        self.cache_session = cache_session
        self._given_tools = _checked([tools] if callable(tools) else tools or ())
        counts: dict[str, float | None] = {
            "num_history_runs": num_history_runs,
            "num_history_messages": num_history_messages,
        }
        counts |= {"history_token_budget": history_token_budget, "timeout_s": timeout_s, "max_requests": max_requests}
        _require_counts(counts | {"num_past_sessions_to_search": num_past_sessions_to_search})
        if session_summary_manager is not None and not hasattr(session_summary_manager, "covering"):
            hint = "SessionSummaryManager(model=...) makes one, from kern_nb.agent."
            raise BadUsage(f"{session_summary_manager!r} makes no summaries.", hint)
        if not (instructions is None or isinstance(instructions, (str, Sequence)) or callable(instructions)):
            raise BadUsage(f"instructions={instructions!r} are no text.", _INSTRUCTIONS)
        self._reads_history = read_chat_history
        self._searches_sessions = num_past_sessions_to_search if search_past_sessions else 0
        # Beside a token budget, a manager makes the summary that the budget needs, when it needs one.
        by_itself = session_summary_manager is not None and history_token_budget is None
        self._keeps_summaries = enable_session_summaries or by_itself
        self._given_summaries = session_summary_manager
        self._storage = {"media": store_media, "tool_messages": store_tool_messages}
        self._storage["history_messages"] = store_history_messages
        self._history: dict[str, Any] = {"add": add_history_to_context, "runs": num_history_runs}
        self._history |= {"messages": num_history_messages, "token_budget": history_token_budget}
        self._history["add_summary"] = add_session_summary_to_context
        self._loop: tuple[PydanticAgent[RunContext, Any], dict[str, Tool]] | None = None
        self._cached: WeakKeyDictionary[SessionStore, dict[str, Session]] = WeakKeyDictionary()

    def _parameters(self) -> dict[str, Any]:
        own = {"tools": list(self._given_tools), "session_state": copy.deepcopy(self.default_state)}
        return super()._parameters() | own

    def _make_anew(self, parameters: dict[str, Any]) -> None:
        Agent.__init__(self, **parameters)

    # What the engine asks for (`kern_nb.runtime.engine.Runner`) -------------------------------------------------------

    @property
    def storage(self) -> Storage:
        """What of a run is kept."""
        from kern_nb.runtime.recorder import Storage

        return Storage(**self._storage)

    @property
    def history(self) -> HistoryOptions:
        """How much of the past goes into the model's context."""
        from kern_nb.runtime.history import HistoryOptions

        return HistoryOptions(**self._history)

    @property
    def summaries(self) -> SessionSummaryManager:
        """Who makes the summaries."""
        from kern_nb.runtime.summaries import SessionSummaryManager

        with self._lock:
            self._given_summaries = self._given_summaries or SessionSummaryManager()
            return self._given_summaries

    @property
    def has_toolsets(self) -> bool:
        """Whether it has tools that are known only when it runs, an MCP server's for example."""
        return any(hasattr(one, "get_tools") for one in self._given_tools)

    @property
    def tools(self) -> Mapping[str, Tool]:
        """Its tools by name."""
        return self._made_loop()[1]

    def loop(self) -> PydanticAgent[RunContext, Any]:
        """pydantic-ai's agent with our tools, made once."""
        return self._made_loop()[0]

    def _made_loop(self) -> tuple[PydanticAgent[RunContext, Any], dict[str, Tool]]:
        from kern_nb.runtime import model_loop

        with self._lock:
            self._loop = self._loop or model_loop.make(self.name or self.id, self._every_tool())
            return self._loop

    def _every_tool(self) -> list[Any]:
        from kern_nb.runtime.history import chat_history_tool, past_sessions_tool

        tools = list(self._given_tools)
        if self._reads_history:
            tools.append(chat_history_tool())
        if self._searches_sessions:
            tools.append(past_sessions_tool(self._searches_sessions))
        return tools

    @property
    def has_fixed_instructions(self) -> bool:
        """Whether its instructions are texts, known before a run starts."""
        given = self.instructions
        if isinstance(given, str | None):
            return True
        return isinstance(given, list | tuple) and all(isinstance(text, str) for text in given)

    async def instructed(self, context: RunContext | None) -> str | None:
        """The instructions for a run; None stands for one that has not started, where they are fixed."""
        given = self.instructions
        if callable(given) and context is not None:
            from kern_nb.runtime.iteration import IterationFailed, resolve

            try:
                given = await resolve(_asked(given, context))
            except IterationFailed as failed:
                raise failed.cause from None
        if not isinstance(given, str | Sequence | None) or not all(isinstance(line, str) for line in given or ()):
            raise BadUsage(f"The function for instructions gave {given!r}, which is no text.", _INSTRUCTIONS)
        return given if given is None or isinstance(given, str) else "\n".join(given)

    async def known_results(self, run: Run, context: RunContext) -> dict[str, Any] | None:
        """An agent has no members whose runs could give results."""
        return {}

    def configuration(self) -> dict[str, Any]:
        """What is kept of it with a new session."""
        instructions = self.instructions if isinstance(self.instructions, str) else None
        return {"model": models.name_of(self.model), "instructions": instructions}

    # Running ----------------------------------------------------------------------------------------------------------

    def _prepared(  # type: ignore[override] # which options a run takes is the business of each kind
        self,
        input: Any,
        session_id: str,
        user_id: str | None,
        extra: dict[str, Any],
        session_state: dict[str, Any] | None = None,
        images: Any = None,
        audio: Any = None,
        videos: Any = None,
        files: Any = None,
        parent: RunContext | None = None,
    ) -> Work:
        from kern_nb.interop import media
        from kern_nb.runtime import engine

        prompt = media.prompt(input, {"image": images, "audio": audio, "video": videos, "document": files})
        store = parent.store if parent else self.store
        request = engine.Request(prompt, session_id, user_id, require_state(session_state), parent, extra)

        async def work(emit: Emit) -> Run:
            try:
                return self._ended(store, await engine.begin(self, store, request, emit))
            finally:
                self._forget(store, session_id)

        return work

    async def _proceed(
        self,
        run_id: str | int | Run,
        session_id: str | None,
        emit: Emit,
        parent: RunContext | None = None,
        *,
        user_id: str | None = None,
    ) -> Run:
        from kern_nb.runtime import engine
        from kern_nb.runtime.threads import in_thread

        store = parent.store if parent else self.store
        # What a leader or a workflow goes on with is known by its id, in its store.
        user_id = None if parent else self._user(user_id)
        find = partial(store.get_run, str(run_id)) if parent else partial(self._found, run_id, session_id, user_id)
        before = await in_thread(find)
        try:
            return self._ended(store, await engine.proceed(self, store, before, emit, parent, user_id))
        finally:
            self._forget(store)

    def _forget(self, store: SessionStore, session_id: str | None = None) -> None:
        """Drop what is cached of a session that changes, or of all in a store."""
        cached = self._cached.get(store, {})
        for known in [session_id] if session_id else list(cached):
            cached.pop(known, None)

    def _ended(self, store: SessionStore, run: Run) -> Run:
        """What follows a run and delays nobody."""
        if self._keeps_summaries and run.status == "COMPLETED" and run.parent_run_id is None:
            try:
                made = self.summaries.start(store, run.session_id or "", self.model)
                made.add_done_callback(lambda _: self._forget(store, run.session_id))
            except Exception as error:  # noqa: BLE001 - the run is completed, and its answer is there
                logging.getLogger("kern_nb").warning("Session %s has no new summary: %s", run.session_id, error)
        return run

    # Sessions ---------------------------------------------------------------------------------------------------------

    def get_session(self, session_id: str | None = None, *, user_id: str | None = None) -> Session | None:
        """A session with its runs; None where there is none, or it is another user's.

        With ``cache_session`` it is read once, until this agent changes it; what others add is not seen.
        """
        known, owner, store = self._known(session_id), self._user(user_id), self.store
        cached = self._cached.get(store, {}).get(known)
        if cached is None or owner not in (None, cached.user_id):
            cached = super().get_session(session_id, user_id=user_id)
            if not self.cache_session or cached is None:
                return cached
            self._cached.setdefault(store, {})[known] = cached
        return cached.model_copy(deep=True)  # the cached one stays as it is stored

    def get_session_summary(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> SessionSummary | None:
        """The summary of a session, None where none was made; one that is being made is waited for."""
        known = self._required(session_id, user_id).session_id
        if self._given_summaries is not None:
            self._given_summaries.wait(self.store, known)
        return super().get_session_summary(known, user_id=user_id)

    def set_session_name(
        self,
        session_name: str | None = None,
        session_id: str | None = None,
        *,
        autogenerate: bool = False,
        user_id: str | None = None,
    ) -> str:
        """Give a session a title, or (without one, or with ``autogenerate``) have the model make it; the title.

        Raises:
            SessionNotFound: there is no such session.
        """
        known = self._required(session_id, user_id).session_id
        if session_name is None or autogenerate:
            from kern_nb.runtime import event_loop
            from kern_nb.runtime.titles import made

            session_name = event_loop.run(lambda: made(self.store, known, self.model, self._user(user_id)))
        self._forget(self.store, known)
        return super().set_session_name(session_name, known, user_id=user_id)

    def update_session_state(
        self, updates: dict[str, Any], session_id: str | None = None, *, user_id: str | None = None
    ) -> dict[str, Any]:
        """Set keys of a session's state; the state as it is now."""
        self._forget(self.store, self._known(session_id))
        return super().update_session_state(updates, session_id, user_id=user_id)

    def delete_session(
        self, session_id: str | None = None, *, detach_branches: bool = False, user_id: str | None = None
    ) -> None:
        """Delete a session with all that is in it; see `SessionStore.delete_session`."""
        self._forget(self.store, self._known(session_id))
        super().delete_session(session_id, detach_branches=detach_branches, user_id=user_id)
