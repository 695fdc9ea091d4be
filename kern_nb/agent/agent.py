"""`Agent`: a model with instructions and tools, whose every run is stored in a session.

pydantic-ai runs the model and the tools; `kern_nb.runtime` stores the session. Creating an agent imports neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kern_nb import models
from kern_nb.agent.parameters import Instructions, require_counts, require_instructions, require_tools
from kern_nb.agent.runs import AgentRuns
from kern_nb.runtime.async_methods import async_method
from kern_nb.runtime.parameters import require_text
from kern_nb.runtime.unsupported import refuse_unsupported

if TYPE_CHECKING:
    from pydantic_ai import Agent as PydanticAgent

    from kern_nb.db import SessionStore
    from kern_nb.records import Message, Run, SessionType
    from kern_nb.runtime.context import RunContext
    from kern_nb.runtime.settings import AgentSettings
    from kern_nb.runtime.structured_output import OutputSchema
    from kern_nb.runtime.summaries import SessionSummaryManager
    from kern_nb.runtime.tools import Tool

__all__ = ["Agent", "Instructions"]

_MARKDOWN = "Format your answers as Markdown."


class Agent(AgentRuns):
    """A model with instructions and tools that stores every run in a session.

    Example:
        >>> from kern_nb import Agent, InMemoryDb
        >>> from kern_nb.models.scripted import ScriptedModel
        >>> model = ScriptedModel(["Hello Alice.", "You are Alice."])
        >>> agent = Agent(model, db=InMemoryDb(), session_id="chat", add_history_to_context=True)
        >>> agent.run("My name is Alice").output
        'Hello Alice.'
        >>> agent.run("What is my name?").output
        'You are Alice.'
        >>> [message.role for message in agent.get_chat_history()]
        ['user', 'assistant', 'user', 'assistant']

    One agent serves any number of sessions, users and threads at once; what belongs to a session is in the store.

    Args:
        model: A name (``"openai:gpt-5.2"``), an object of `kern_nb.models`, or a pydantic-ai model; where None, that of
            its team, of the environment's KERN_MODEL, else gpt-5.2 behind the Responses API.
        db: The store, or its path or URL; where None, the attached store, else one in memory.
        session_id: The default session; where None, the first run creates one.
        user_id: The default owner of its sessions.
        session_state: The state of a new session, and of keys that a stored one lacks.
        metadata: Keys to store with its sessions, where they lack them, and with its runs.
        description: What it is, as the beginning of its system message.
        instructions: A text, several, or a function (of ``run_context`` or ``session_state``, if it has such
            parameters) that returns one. Several are sent as a list.
        tools: Functions, results of `tool`, and pydantic-ai toolsets (MCP servers, for example).
        markdown: Ask for answers in Markdown.
        output_schema: The type of its answers, such as a pydantic model, or a JSON schema. ``output`` of its runs is
            an object of that type; its JSON is stored.
        role: What it is good at, in a sentence for the leader of its team and for its own model.
        name: A display name.
        id: The agent_id of its sessions; derived from the name where None.
        add_history_to_context: Send the earlier runs of the session to the model.
        num_history_runs: The number of latest runs to send.
        num_history_messages: The number of latest messages to send, instead of runs.
        history_token_budget: The approximate maximum of tokens of history: the summary replaces older runs.
        max_tool_calls_from_history: The number of latest tool calls, with their results, in the history to send.
        add_session_state_to_context: Send the session state to the model, at the end of the system message.
        enable_agentic_state: Add a tool that sets keys of the session state.
        read_chat_history: Add a tool that reads the session's history.
        read_tool_call_history: Add a tool that reads the session's latest tool calls.
        search_past_sessions: Add tools that list, search and read the other sessions of the same user.
        num_past_sessions_to_search: The number of latest sessions that they search.
        num_past_session_runs_in_search: The number of runs of each session in that list.
        enable_session_summaries: Update a summary of the session after each run, without a delay of the answer.
        add_session_summary_to_context: Send the summary to the model, after a wait of up to ten seconds for one that is
            being written; where None, if summaries are enabled.
        session_summary_manager: Writes the summaries, with its own model and prompt; without ``history_token_budget``
            it also enables them.
        store_media: Store images and other files, each once, by its hash.
        store_tool_messages: Store the results of tools; otherwise only names and arguments are stored.
        store_history_messages: Store with each run a copy of the history that the model received.
        cache_session: Keep a session in memory once it was read, until this agent changes it; changes by others are
            not seen.
        overwrite_db_session_state: Let the state passed to a run replace the stored one.
        stream: Whether runs return an iterator of events, unless the run says; `print_response` prints them as they
            come.
        stream_events: Whether streams also have the finer events, unless the run says.
        store_events: Store the events of a run with it: ``run.events``.
        events_to_skip: Events that are not stored: values of `kern_nb.run.agent.RunEvent`; those of an answer's parts
            where None.
        retries: How often a request is sent again if its provider fails or is busy, and how often in a row the model
            may repeat an invalid call of a tool, or an answer that does not fit ``output_schema``, before the run ends
            with an error; where None, 0 and 3.
        delay_between_retries: The time before a request is sent again, in seconds.
        exponential_backoff: Double that time with each retry.
        timeout_s: The maximum duration of a run in seconds; it then ends with an error.
        max_requests: The maximum number of model requests in a run; None for no limit.
        resolve_in_context: Fill in ``{key}`` in the description, role, instructions and a text input from the session
            state (and ``metadata``, and ``{user_id}``); other braces remain.

    Raises:
        BadUsage: a parameter is not valid.
    """

    session_type: ClassVar[SessionType] = "agent"
    _engine_module: ClassVar[str] = "kern_nb.runtime.engine"

    @refuse_unsupported
    def __init__(
        self,
        model: Any = None,
        *,
        db: SessionStore | str | Path | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        session_state: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        description: str | None = None,
        instructions: Instructions = None,
        tools: Sequence[Any] | None = None,
        markdown: bool = False,
        output_schema: Any = None,
        role: str | None = None,
        name: str | None = None,
        id: str | None = None,
        add_history_to_context: bool = False,
        num_history_runs: int = 3,
        num_history_messages: int | None = None,
        history_token_budget: int | None = None,
        max_tool_calls_from_history: int | None = None,
        add_session_state_to_context: bool = False,
        enable_agentic_state: bool = False,
        read_chat_history: bool = False,
        read_tool_call_history: bool = False,
        search_past_sessions: bool = False,
        num_past_sessions_to_search: int = 10,
        num_past_session_runs_in_search: int = 3,
        enable_session_summaries: bool = False,
        add_session_summary_to_context: bool | None = None,
        session_summary_manager: SessionSummaryManager | None = None,
        store_media: bool = True,
        store_tool_messages: bool = True,
        store_history_messages: bool = False,
        cache_session: bool = False,
        overwrite_db_session_state: bool = False,
        stream: bool | None = None,
        stream_events: bool | None = None,
        store_events: bool = False,
        events_to_skip: Sequence[Any] | None = None,
        retries: int | None = None,
        delay_between_retries: float = 1,
        exponential_backoff: bool = False,
        timeout_s: float | None = None,
        max_requests: int | None = 50,
        resolve_in_context: bool = True,
    ) -> None:
        super().__init__(locals())
        self.model = model
        self.instructions = instructions
        self.role = role
        self.max_requests = max_requests
        self.output_schema = output_schema
        self._arguments["tools"] = self._tools = require_tools(tools or ())
        require_counts(self._arguments)
        require_instructions(instructions)
        require_text("description", description)
        # With a token budget, a manager only writes the summary when the budget needs it.
        manager_enables = session_summary_manager is not None and history_token_budget is None
        self._keeps_summaries = enable_session_summaries or manager_enables
        self._loop: tuple[PydanticAgent[RunContext, Any], dict[str, Tool]] | None = None
        self._output: tuple[Any, OutputSchema] | None = None

    _reinitialize: ClassVar[Callable[..., None]] = __init__

    def _configuration(self) -> dict[str, Any]:
        instructions = self.instructions if isinstance(self.instructions, str) else None
        return {"model": models.model_name(self.model), "instructions": instructions}

    # Settings of the engine -------------------------------------------------------------------------------------------

    def _settings(self, parent: RunContext | None = None) -> AgentSettings:
        from kern_nb.runtime.history import HistoryOptions
        from kern_nb.runtime.model_retries import RetryOptions
        from kern_nb.runtime.recorder import Storage
        from kern_nb.runtime.settings import AgentSettings

        pydantic_agent, tools = self._model_loop()
        arguments, instructions = self._arguments, self.instructions
        add_summary = arguments["add_session_summary_to_context"]
        is_static_list = isinstance(instructions, list | tuple) and all(isinstance(text, str) for text in instructions)
        return AgentSettings(
            **vars(super()._settings(parent)),
            model=parent.model if self.model is None and parent is not None else self.model,
            max_requests=self.max_requests,
            pydantic_agent=pydantic_agent,
            tools=tools,
            has_toolsets=any(hasattr(item, "get_tools") for item in self._tools),
            storage=Storage(
                media=arguments["store_media"],
                tool_messages=arguments["store_tool_messages"],
                history_messages=arguments["store_history_messages"],
            ),
            history=HistoryOptions(
                add=arguments["add_history_to_context"],
                runs=arguments["num_history_runs"],
                messages=arguments["num_history_messages"],
                token_budget=arguments["history_token_budget"],
                tool_calls=arguments["max_tool_calls_from_history"],
                add_summary=self._keeps_summaries if add_summary is None else add_summary,
            ),
            summaries=self._summaries(),
            retries=RetryOptions(
                arguments["retries"], arguments["delay_between_retries"], arguments["exponential_backoff"]
            ),
            output=self._output_schema(),
            add_session_state=arguments["add_session_state_to_context"],
            has_static_instructions=isinstance(instructions, str | None) or is_static_list,
            load_instructions=self._load_instructions,
            resolve_in_context=arguments["resolve_in_context"],
            load_member_results=self._load_member_results,
        )

    def _output_schema(self) -> OutputSchema | None:
        """Return the schema of the answers, built once."""
        if self.output_schema is None:
            return None
        from kern_nb.runtime.structured_output import OutputSchema

        if self._output is None or self._output[0] is not self.output_schema:
            self._output = self.output_schema, OutputSchema(self.output_schema)
        return self._output[1]

    def _model_loop(self) -> tuple[PydanticAgent[RunContext, Any], dict[str, Tool]]:
        """Return pydantic-ai's agent, created once, and its tools by name."""
        from pydantic_ai import Agent as PydanticAgent
        from pydantic_ai import DeferredToolRequests

        from kern_nb.runtime.context import RunContext
        from kern_nb.runtime.tools import build_toolset

        with self._lock:
            if self._loop is None:
                tools, toolset = build_toolset(self._all_tools())
                agent: PydanticAgent[RunContext, Any] = PydanticAgent(
                    deps_type=RunContext,
                    output_type=[str, DeferredToolRequests],
                    toolsets=[toolset],
                    name=self.name or self.id,
                )
                self._loop = agent, tools
            return self._loop

    def _all_tools(self) -> list[Any]:
        from kern_nb.runtime import agent_tools

        tools, arguments = list(self._tools), self._arguments
        if arguments["read_chat_history"]:
            tools.append(agent_tools.get_chat_history)
        if arguments["read_tool_call_history"]:
            tools.append(agent_tools.get_tool_call_history)
        if arguments["search_past_sessions"] and (n := arguments["num_past_sessions_to_search"]):
            tools += agent_tools.past_session_tools(n, arguments["num_past_session_runs_in_search"])
        if arguments["enable_agentic_state"]:
            tools.append(agent_tools.update_session_state)
        return tools

    async def _load_instructions(self, context: RunContext | None) -> str | None:
        """Return the role and instructions of a run; static ones also without a context."""
        from kern_nb.runtime.prompt_text import InstructionTexts, evaluate_instructions

        arguments = self._arguments
        is_markdown = arguments["markdown"] and self.output_schema is None
        texts = InstructionTexts(
            description=arguments["description"],
            role=self.role,
            instructions=self.instructions,
            closing=_MARKDOWN if is_markdown else None,
        )
        return await evaluate_instructions(texts, context)

    async def _load_member_results(self, run: Run, context: RunContext) -> dict[str, Any] | None:
        """Return {}: an agent has no members."""
        return {}

    # Sessions ---------------------------------------------------------------------------------------------------------

    def get_chat_history(
        self,
        session_id: str | None = None,
        last_n_runs: int | None = None,
        *,
        last_runs: int | None = None,
        tool_messages: bool = False,
        user_id: str | None = None,
    ) -> list[Message]:
        """Return the messages of a session's users and assistants, inherited ones included; see also `Session.runs`.

        Args:
            session_id: The session; the own session where None.
            last_n_runs: Only so many of the latest runs.
            last_runs: Another name of ``last_n_runs``.
            tool_messages: Whether the results of tools are included.
            user_id: The owner of the session.

        Raises:
            SessionNotFound: there is no such session of the user; also raised by the methods below.
        """
        return self.store.chat_history(
            self._require_session_id(session_id),
            last_runs=last_runs if last_n_runs is None else last_n_runs,
            tool_messages=tool_messages,
            user_id=self._user(user_id),
        )

    aget_chat_history = async_method(get_chat_history)
