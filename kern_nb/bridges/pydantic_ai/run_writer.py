"""`RunWriter`: writes one run of a pydantic-ai agent to a store, each step in a transaction."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
from pydantic_ai import messages as pai
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults

from kern_nb.bridges import run_options
from kern_nb.bridges.pydantic_ai import approvals
from kern_nb.bridges.pydantic_ai.conversion import PartConverter, history_messages
from kern_nb.bridges.pydantic_ai.history import find_known_run, inherit
from kern_nb.bridges.pydantic_ai.resume import describe_pause
from kern_nb.db.integrity import abandon
from kern_nb.db.open_runs import set_internal
from kern_nb.db.store import SessionStore
from kern_nb.errors import RunExists
from kern_nb.extra_keys import ARGS, DURATION_S, FRAMEWORK, MODEL_MESSAGE, PAUSE, TOOL_CALL_ID
from kern_nb.interop import media
from kern_nb.records import Message, Run, RunStatus, Usage
from kern_nb.runtime.event_loop import in_thread
from kern_nb.runtime.recorder import history_copy


@dataclass(frozen=True)
class RunStart:
    """What is known of a run before its first message.

    Attributes:
        run_id: The framework's id of it.
        session_id: The session.
        agent_id: The agent's name.
        model: The model's name.
        model_provider: The model's provider.
        prompt: The input.
        metadata: What the caller stated of the run.
        parent_run_id: The run in a tool of which it runs.
        tool_call_id: The call of that tool.
    """

    run_id: str
    session_id: str
    agent_id: str | None
    model: str | None
    model_provider: str | None
    prompt: Any
    metadata: dict[str, Any] | None
    parent_run_id: str | None
    tool_call_id: str | None


class RunWriter:
    """The writer of one run.

    Attributes:
        run_id: The id of the stored run: of a resumed one not that of the framework.
        session_id: Its session.
    """

    def __init__(self, store: SessionStore, start: RunStart, history: Sequence[pai.ModelMessage]) -> None:
        self.run_id = start.run_id
        self.session_id = start.session_id
        self._store = store
        self._start = start
        self._history = history
        self._converter = PartConverter(store.put_blob)
        self._is_open = False
        self._writing = anyio.Lock()  # messages are numbered in order
        self._start_time = time.monotonic()
        self._earlier_duration_s = 0.0
        self._call_starts: dict[str, float] = {}
        self._usages: list[Usage | None] = []
        self._last_response: pai.ModelResponse | None = None

    async def resume(self, results: DeferredToolResults) -> None:
        """Claim the paused run that the results answer, if it is stored, and go on writing it.

        Raises:
            AlreadyClaimed: Somebody else resumed it.
            RunClosed: It was resumed, and has ended.
            AlreadyResolved: A person has answered otherwise.
            StillWaiting: Requirements are pending.
        """

        def claim() -> Run | None:
            known = find_known_run(self._store, self._history)
            if known is None:
                return None
            return approvals.claim(self._store, known.run_id, self._start.run_id, results)

        run = await in_thread(claim)
        if run is None:
            return
        own = [message for message in run.messages if not message.from_history]
        start = max([m.internal.get(MODEL_MESSAGE, -1) for m in own], default=-1) + 1
        ended = [message.tool_call_id for message in own if message.role == "tool"]
        self.run_id, self.session_id, self._is_open = run.run_id, run.session_id or self.session_id, True
        self._converter = PartConverter(self._store.put_blob, start, ended)
        self._earlier_duration_s = run.duration_s or 0.0
        self._usages = [message.usage for message in own]

    async def write(self, messages: Sequence[pai.ModelMessage], prompt: Any = None) -> None:
        """Store what is not stored yet of the run's messages. The first write opens the run."""
        await self._locked(lambda: self._append(self._convert(messages, prompt)))

    def call_started(self, tool_call_id: str) -> None:
        """Note when a tool starts; the row of its call exists already."""
        self._call_starts[tool_call_id] = time.monotonic()

    async def call_ended(
        self,
        tool_call_id: str,
        tool_name: str,
        value: Any,
        *,
        is_error: bool = False,
        args: Mapping[str, Any] | None = None,
    ) -> None:
        """Store a tool's result, before anything else happens.

        Args:
            tool_call_id: The call.
            tool_name: The tool.
            value: What it returned, or its error.
            is_error: Whether it failed.
            args: The arguments that it ran with, if a person changed them.
        """

        def convert() -> Message:
            message = self._converter.convert_result(tool_call_id, tool_name, value, is_error=is_error)
            if args is not None:
                message.internal[ARGS] = args
            return message

        await self._store_result(tool_call_id, convert)

    async def call_failed(self, part: pai.ToolReturnPart) -> None:
        """Store the error that the model gets in place of a tool's result."""
        text = part.model_response_str(wrap_if_error=False)
        await self.call_ended(part.tool_call_id, part.tool_name, text, is_error=True)

    async def _store_result(self, tool_call_id: str, convert: Callable[[], Message]) -> None:
        ended = time.monotonic()

        def store() -> None:
            message = convert()
            if tool_call_id in self._call_starts:  # the call itself, without the wait for other writes
                message.internal[DURATION_S] = ended - self._call_starts[tool_call_id]
            self._append([message])

        await self._locked(store)

    async def pause(
        self,
        requests: DeferredToolRequests,
        messages: Sequence[pai.ModelMessage],
        history: Sequence[pai.ModelMessage],
        options: Mapping[str, Any],
    ) -> None:
        """Store the last messages, and pause the run for the answers to its calls.

        Args:
            requests: The calls.
            messages: The messages of the run.
            history: These, and what its caller passed, which resume it.
            options: The arguments that resume it, too.
        """
        values: dict[str, Any] = {"duration_s": self._duration_s()}

        def pause() -> None:
            self._append(self._convert(messages), opens=True)
            requirements = approvals.build_requirements(requests)
            pause = describe_pause(history, options, self._store)
            with self._store.transaction():
                self._store.write(lambda c: set_internal(c, self._store, self.run_id, {PAUSE: pause}))
                self._store.pause_run(self.run_id, requirements, usage=Usage.total(self._usages), **values)
            run_options.remember(self.run_id, options)

        await self._locked(pause)

    async def finish(self, output: Any, messages: Sequence[pai.ModelMessage]) -> None:
        """Store the last messages and the end of the run."""
        await self._end("COMPLETED", messages, output=media.plain_value(output))

    async def fail(self, status: RunStatus, error: str, messages: Sequence[pai.ModelMessage]) -> None:
        """Store that the run failed or was cancelled. If that cannot be written, give up the run's lease."""
        try:
            await self._end(status, messages, error=error)
        except Exception:
            abandon(self.run_id)
            raise

    async def _end(self, status: RunStatus, messages: Sequence[pai.ModelMessage], **values: Any) -> None:
        values["duration_s"] = self._duration_s()

        def end() -> None:
            last = self._convert(messages)
            if status == "CANCELLED" and last and last[-1].role == "assistant":
                last[-1].partial = True  # the end of a complete answer is the end of the run
            if not self._is_open:
                self._append(last, opens=True)
                last = []
            if self._last_response is not None:
                values["model"] = self._last_response.model_name
                values["model_provider"] = self._last_response.provider_name
            usage = Usage.total(self._usages)
            self._store.finish_run(self.run_id, status=status, usage=usage, messages=last, **values)

        await self._locked(end)

    async def _locked(self, work: Callable[[], None]) -> None:
        async with self._writing:
            await in_thread(work)

    def _convert(self, messages: Sequence[pai.ModelMessage], prompt: Any = None) -> list[Message]:
        responses = [message for message in messages if isinstance(message, pai.ModelResponse)]
        self._last_response = responses[-1] if responses else self._last_response
        converted = self._converter.convert(messages, prompt)
        self._usages += [message.usage for message in converted]
        for message in converted:
            message.created_at = None  # messages are ordered by time, too: a provider's clock does not count
        return converted

    def _append(self, messages: list[Message], *, opens: bool = False) -> None:
        if self._is_open:
            if messages:
                self._store.append_messages(self.run_id, messages)
        elif messages or opens:
            self._open(messages)

    def _open(self, messages: list[Message]) -> None:
        """Store the run with its first messages, after those of its history that the store does not have."""
        start, store = self._start, self._store
        known = find_known_run(store, self._history)
        if known is not None and start.parent_run_id is None:
            inherit(store, self.session_id, known)
        unknown = self._history[known.n_known if known else 0 :]
        copies = [history_copy(message) for message in history_messages(unknown, store.put_blob)]
        options: dict[str, Any] = {
            "input": media.store_content(start.prompt, store.put_blob) if start.prompt is not None else None,
            "agent_id": start.agent_id,
            "model": start.model,
            "model_provider": start.model_provider,
            "parent_run_id": start.parent_run_id,
            "extra": {"metadata": media.plain_value(start.metadata)} if start.metadata else None,
            "internal": {FRAMEWORK: "pydantic_ai"} | ({TOOL_CALL_ID: start.tool_call_id} if start.tool_call_id else {}),
            "messages": [*copies, *messages],
        }
        try:
            self.run_id = store.start_run(self.session_id, run_id=start.run_id, **options).run_id
        except RunExists:  # the framework lets a failed run's id be used again
            self.run_id = store.start_run(self.session_id, **options).run_id
        self._is_open = True

    def _duration_s(self) -> float:
        """The working time of the run, without the time that it was paused."""
        return self._earlier_duration_s + time.monotonic() - self._start_time
