"""`Recorder`: writes a run as it happens, each message and each tool result at once.

A step is one transaction: the start with the first messages, where these are known by then; an answer with its calls; a
result with the state that its tool changed; the last answer with the end. An answer without calls is therefore buffered
until the next step is known: the end of the run, or the next request.

Every write is awaited in a thread, so that a busy store blocks this run alone, and is completed when the run is
cancelled.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import anyio
from pydantic_ai import messages as pai

from kern_nb.db import SessionStore, codec
from kern_nb.db.integrity import abandon
from kern_nb.db.mapping import as_stored, result_status
from kern_nb.db.run_writes import RunEnd
from kern_nb.errors import RunClosed, UnstorableValue
from kern_nb.events import base
from kern_nb.extra_keys import ARGS, BY_TOOL, DURATION_S, PARTS, UNKNOWN
from kern_nb.interop import media, messages
from kern_nb.records import Message, Requirement, Run, RunStatus, ToolCall, ToolStatus, Usage
from kern_nb.runtime import cancellation
from kern_nb.runtime.event_loop import in_thread
from kern_nb.runtime.events import EventSource
from kern_nb.runtime.run_state import RunState
from kern_nb.runtime.workspace import Workspace
from kern_nb.runtime.workspace_folder import WorkspaceFolder


@dataclass(frozen=True)
class Storage:
    """What is stored of a run.

    Attributes:
        media: Images and other files, by their hash.
        tool_messages: The results of tools.
        history_messages: A copy of the history that the model received.
    """

    media: bool = True
    tool_messages: bool = True
    history_messages: bool = False


class Recorder:
    """The writer of one open run.

    Attributes:
        folder: The folder of the session's files, which the steps of a workflow share.
        stored_run: The run as it was stored at its end, where the recorder knows all of it: not of a run that was
            resumed.
    """

    def __init__(
        self,
        store: SessionStore,
        run: Run,
        state: RunState,
        storage: Storage,
        events: EventSource,
        *,
        is_new: bool = False,
        folder: WorkspaceFolder | None = None,
    ) -> None:
        self.store = store
        self.run = run
        self.events = events
        self.folder = folder or WorkspaceFolder()
        self._state = state
        self._stored_state = codec.dumps(run.session_state or {})
        self._storage = storage
        self._call_starts: dict[str, float] = {}
        self._edited_calls = {r.tool_call_id for r in run.requirements if r.approved and isinstance(r.answer, dict)}
        self._edited_args: dict[str, Any] = {}
        self._stored_args = {call.tool_call_id: call.args for m in run.messages for call in m.tool_calls}
        self.has_written = False
        self.outputs: list[Any] = []
        self.unknown_calls: set[str | None] = set()
        self._ids = {call.tool_call_id for m in run.messages for call in m.tool_calls}
        self._ended_calls = {m.tool_call_id for m in run.messages if m.role == "tool"}
        self._start_time = time.monotonic()
        self._earlier_duration_s = run.duration_s or 0.0
        self._first_token_s: float | None = None
        self._usages = [m.usage for m in run.messages if not m.from_history]
        self._last_response: pai.ModelResponse | None = None
        self._partial_text = ""
        self._writing = anyio.Lock()
        self.stored_run: Run | None = None
        self._buffer: list[Message] = []
        self._messages: list[Message] | None = list(run.messages) if is_new else None

    def keep(self, content: bytes, media_type: str | None) -> str | None:
        """Store a file's bytes, if files are stored."""
        return self.store.put_blob(content, media_type) if self._storage.media else None

    def keep_result(self, content: bytes, media_type: str | None) -> str | None:
        """Store the bytes of a tool's result, if results are stored."""
        return self.keep(content, media_type) if self._storage.tool_messages else None

    async def write_opening(self, instructions: str | None, history: Sequence[Message], prompt: Any) -> None:
        """Write the first messages."""
        copies: list[Message] = []
        if self._storage.history_messages:
            copies = [history_copy(m) for m in history if self._storage.tool_messages or not messages.is_result(m)]

        def write() -> None:
            content = None if prompt is None else media.store_content(prompt, self.keep)
            first = opening_messages(instructions, copies, content)
            self._track(self.store.append_messages(self.run.run_id, first))

        await in_thread(write)

    def continue_after(self, history: Sequence[Message]) -> None:
        """Note the results in the history of a run without a prompt: its first request repeats the last of them."""
        self._ended_calls |= {message.tool_call_id for message in history if message.role == "tool"}

    async def write_request(self, request: pai.ModelRequest, *, opening: bool = False) -> None:
        """Write the parts of a request that are not stored yet. The prompt of an ``opening`` request is."""
        parts = [part for part in request.parts if not (opening and isinstance(part, pai.UserPromptPart))]
        parts = [part for part in parts if not self._is_stored(part)]
        if not parts:
            await self.flush()
            return
        converted = await in_thread(lambda: [messages.part_to_message(part, self.keep_result) for part in parts])
        new = [message for message in converted if message is not None]
        if not self._storage.tool_messages:
            new = [message for message in new if BY_TOOL not in message.internal]
        results = [message for message in new if message.role == "tool"]
        self._ended_calls |= {message.tool_call_id for message in results}
        for message in results:
            if message.tool_call_id in self.unknown_calls:
                message.internal[UNKNOWN] = True  # this result does not end the call
        if new:
            await self.append(new)
        else:
            await self.flush()

    def _is_stored(self, part: pai.ModelRequestPart) -> bool:
        """Whether a part is the result of a call that was stored when its tool ended."""
        if isinstance(part, pai.RetryPromptPart):
            return part.tool_name is not None and part.tool_call_id in self._ended_calls
        return isinstance(part, pai.ToolReturnPart) and part.tool_call_id in self._ended_calls

    async def write_response(self, response: pai.ModelResponse) -> None:
        """Write an answer. A call id that the run has already gets a suffix, so that results refer to one call."""
        self._last_response = response
        for part in response.parts:
            if isinstance(part, pai.ToolCallPart):
                call_id, n = part.tool_call_id, 1
                while part.tool_call_id in self._ids:
                    n += 1
                    part.tool_call_id = f"{call_id}~{n}"
                self._ids.add(part.tool_call_id)
        if all(isinstance(part, pai.TextPart | pai.ToolCallPart) for part in response.parts):
            message = messages.response_to_message(response, self.keep)
        else:  # it may have files to store
            message = await in_thread(lambda: messages.response_to_message(response, self.keep))
        for part in response.parts:
            if isinstance(part, pai.ToolCallPart) and isinstance(part.args, dict):
                part.args = media.printable(part.args)  # the stored call has the original
        # Messages are ordered by time too, so a provider's clock does not count.
        stamped = message.model_copy(update={"created_at": datetime.now(UTC)})
        if not self._storage.tool_messages and PARTS in stamped.internal:
            stamped.internal[PARTS] = messages.without_results(stamped.internal[PARTS])
        self._usages.append(stamped.usage)
        self._stored_args |= {call.tool_call_id: call.args for call in message.tool_calls}
        if message.tool_calls:
            await self.append([stamped])
        else:
            codec.dumps([stamped.content, stamped.extra])  # raises now for a value that cannot be stored
            self.has_written = True
            self._buffer.append(stamped)
            self._partial_text = ""  # the answer is complete

    def first_token(self) -> None:
        """Note the time of the first token."""
        if self._first_token_s is None:
            self._first_token_s = time.monotonic() - self._start_time

    def add_text(self, text: str) -> None:
        """Add text to the current answer, which is stored when it is complete, or when the run ends before that."""
        self._partial_text += text
        self.has_written = True
        self.events.emit(base.Content, content=text)

    def call_started(self, tool_call_id: str, tool_name: str, args: Any) -> None:
        """Note that a tool is about to run; the row of its call exists already."""
        self._call_starts[tool_call_id] = time.monotonic()
        if tool_call_id in self._edited_calls:
            self._edited_args[tool_call_id] = media.plain_value(args)
        self.has_written = True
        if self.events.is_active:
            call = ToolCall(tool_call_id=tool_call_id, tool_name=tool_name, status="started")
            call.args = self._shown_args(tool_call_id, args)
            self.events.emit(base.CallStarted, tool=call)

    async def call_ended(
        self, tool_call_id: str, tool_name: str, args: Any, output: media.ToolOutput, *, is_error: bool
    ) -> None:
        """Store a tool's result and the state that it changed, before anything else happens."""
        self._ended_calls.add(tool_call_id)
        message = messages.result_message(tool_call_id, tool_name, output, is_error=is_error)
        if tool_call_id in self._call_starts:  # the call itself, without the time that a person took before
            message.internal[DURATION_S] = time.monotonic() - self._call_starts[tool_call_id]
        if tool_call_id in self._edited_args:  # its row has the arguments that it ran with
            message.internal[ARGS] = self._edited_args[tool_call_id]
        try:
            state = await self._state_with_files()
            text = codec.dumps(state)
        except UnstorableValue:  # the tool has run nevertheless
            await self.append([message])
            raise
        await self.append([message], state=state if text != self._stored_state else None)
        self._stored_state = text
        if self.events.is_active:
            status: ToolStatus = "failed" if is_error else "completed"
            call = ToolCall(tool_call_id=tool_call_id, tool_name=tool_name, status=status)
            call.args, call.result = self._shown_args(tool_call_id, args), message.content
            call.duration_s = message.internal.get(DURATION_S)
            self.events.emit(base.CallCompleted, tool=call)
            if is_error:
                self.events.emit(base.CallFailed, tool=call, error=media.as_text(message.content))

    def _shown_args(self, tool_call_id: str, args: Any) -> Any:
        """Return a call's arguments as its row has them: the model's, or a person's, without the tool's defaults."""
        return args if tool_call_id in self._edited_calls else self._stored_args.get(tool_call_id, args)

    async def end_invalid_calls(self, error: Exception) -> None:
        """Store the calls of the last answer that did not start as failed: the run ends because one is not valid."""
        parts = self._last_response.parts if self._last_response else ()
        calls = [part for part in parts if isinstance(part, pai.ToolCallPart)]
        reason = error.__cause__ or error
        for part in calls:
            call_id = part.tool_call_id
            if call_id not in self._ended_calls and call_id not in self._call_starts:
                is_invalid = f"{part.tool_name!r}" in str(error)
                text = f"{type(reason).__name__}: {reason}" if is_invalid else "Not run: another call was not valid."
                output = media.ToolOutput(text, text)
                await self.append([messages.result_message(call_id, part.tool_name, output, is_error=True)])

    def end_with(self, output: Any) -> None:
        """Let the run end with an output, that of a tool which is running, before the model is called again."""
        self.outputs.append(output)

    async def flush(self) -> None:
        """Store a buffered answer: the next step may take long."""
        if self._buffer:
            await self.append([])

    async def append(self, new: Sequence[Message], state: dict[str, Any] | None = None) -> None:
        """Write messages after those in the buffer, and the state that a tool changed."""
        self.has_written = True

        def write() -> None:
            store_results = self._storage.tool_messages
            all_new = [*self._buffer, *new]
            self._track(
                self.store.append_messages(self.run.run_id, all_new, session_state=state, store_results=store_results)
            )
            self._buffer = []
            if any(message.role == "assistant" for message in new):
                self._partial_text = ""  # the answer is complete

            cancellation.check()

        async with self._writing:  # so that messages are numbered in order
            await in_thread(write)

    def _track(self, stored: Sequence[Message]) -> None:
        """Add stored messages to the known run, as long as all of it is known."""
        if self._messages is None:
            return
        calls = {call.tool_call_id: call for message in self._messages for call in message.tool_calls}
        for message in stored:
            call = calls.get(message.tool_call_id) if message.role == "tool" else None
            if call is not None:
                call.result, call.status = message.content, result_status(message)
                call.duration_s = message.internal.get(DURATION_S)
            # The call may have ended otherwise: under a repeated id, or without a known duration.
            if message.role == "tool" and (call is None or not isinstance(call.duration_s, float)):
                self._messages = None
                return
            self._messages.append(message)

    async def pause(self, requirements: Sequence[Requirement]) -> None:
        """Pause the run."""
        await self.flush()
        values: dict[str, Any] = {"session_state": await self._state_with_files(), "duration_s": self._duration_s()}
        values |= {"usage": Usage.total(self._usages), "internal": self.events.to_store("PAUSED")}
        await in_thread(lambda: self.store.pause_run(self.run.run_id, requirements, **values))
        if self.run.parent_run_id is None:
            await in_thread(lambda: cancellation.end_paused(self.store, self.run.run_id))

    async def finish(
        self,
        status: RunStatus,
        *,
        output: Any = None,
        error: str | None = None,
        internal: dict[str, Any] | None = None,
    ) -> None:
        """End the run with any status, also while it is cancelled. A partial answer is stored as it is."""
        values: dict[str, Any] = {"output": output, "error": error, "duration_s": self._duration_s()}
        values |= {"usage": Usage.total(self._usages), "time_to_first_token_s": self._first_token_s}
        values["internal"] = (
            (internal or {}) | (self.events.to_store(status, output=output, error=error) or {})
        ) or None
        try:
            state = await self._state_with_files()
        except UnstorableValue:  # as it was when the last tool ended
            if status == "COMPLETED":
                raise
            state = self._state.to_store()
        try:
            is_unchanged = codec.dumps(state) == self._stored_state
        except UnstorableValue:  # raised again when it is stored
            is_unchanged = False
        values |= {"state_unchanged": True} if is_unchanged else {"session_state": state}
        if self._last_response is not None:
            values |= {"model": self._last_response.model_name, "model_provider": self._last_response.provider_name}

        def write() -> None:  # one call, so that a second cancellation does not interrupt it
            final = [*self._buffer]
            if self._partial_text.strip():
                final.append(Message(role="assistant", content=self._partial_text, partial=True))
            end = self.store.finish_run(self.run.run_id, status=status, **values, messages=final)
            self._buffer, self._partial_text = [], ""
            self._track(end.messages)
            self._track_end(status, end, values)
            cancellation.check()

        try:
            await in_thread(write)
            if self.run.requirements and not self._storage.tool_messages:
                await in_thread(lambda: self.store.forget_answers(self.run.run_id))
        except UnstorableValue as unstorable:
            if status == "COMPLETED":
                raise
            # The state could not be stored: the run ends with the state as it was before.
            values |= {"session_state": None, "state_unchanged": False, "error": error or str(unstorable)}
            await in_thread(write)

    def _track_end(self, status: RunStatus, end: RunEnd, values: dict[str, Any]) -> None:
        """Set `stored_run`, where all of the run is known."""
        if self._messages is None or status != "COMPLETED" or self.run.requirements or not self._storage.tool_messages:
            return
        calls = [call for message in self._messages for call in message.tool_calls]
        if any(call.status == "started" for call in calls):
            return
        final = {name: value for name, value in values.items() if value is not None and name != "state_unchanged"}
        final |= {"status": status, "session_state": end.session_state, "finished_at": end.finished_at}
        final |= {} if end.internal is None else {"internal": end.internal}
        run = self.run.model_copy(update=final | {"messages": self._messages, "tool_calls": []})
        self.stored_run = as_stored(self.store.tables, run)

    async def fail(self, error: str, status: RunStatus = "ERROR", *, internal: dict[str, Any] | None = None) -> None:
        """End the run after an error; if even that cannot be written, release the run's lease."""
        try:
            await self.finish(status, error=error, internal=internal)
        except RunClosed:
            pass  # it ended before the cancellation
        except Exception:
            abandon(self.run.run_id)
            raise

    async def _state_with_files(self) -> dict[str, Any]:
        """Return the state, with the files that tools changed in the folder of the workspace."""
        if self.folder.is_open:
            await in_thread(lambda: self.folder.store_changes(Workspace(self.store, self._state), self._state))
        return self._state.to_store()

    def _duration_s(self) -> float:
        """Return the working time of the run in seconds, without the time that it was paused."""
        return self._earlier_duration_s + time.monotonic() - self._start_time


def opening_messages(instructions: str | None, copies: Sequence[Message], prompt: Any) -> list[Message]:
    """Return the first messages of a run; without a prompt, it answers the last message of the history."""
    system = [Message(role="system", content=instructions)] if instructions else []
    return [*system, *copies, *([] if prompt is None else [Message(role="user", content=prompt)])]


def history_copy(message: Message) -> Message:
    """Copy a message of the history into a run: marked, without the calls and tokens that its own run counts."""
    calls = [{"tool_name": call.tool_name, "args": call.args} for call in message.tool_calls]
    changes: dict[str, Any] = {"usage": None, "tool_calls": [], "message_index": None, "from_history": True}
    changes |= {"extra": {"tool_calls": calls} if calls else {}, "internal": {}}
    return message.model_copy(update=changes)
