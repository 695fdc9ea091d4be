"""Writes a run as it happens: each message when it is said, each result when its tool ends.

A step is one transaction: the start with the first messages, where these are known by then; an answer with the calls it
makes; a result with the state it changed; the last answer with the end. An answer without calls is therefore held back
until it is clear what follows, which is the end, or what the model is told next; nothing else happens before that.

Every write is awaited in a thread, so that a busy store holds up this run alone, and is not torn apart when the run is
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
from kern_nb.db.mapping import result_status
from kern_nb.db.run_writes import RunEnd
from kern_nb.db.stored_run import as_stored
from kern_nb.errors import RunClosed, UnstorableValue
from kern_nb.extra_keys import ARGS, BY_TOOL, DURATION_S, PARTS, UNKNOWN
from kern_nb.interop import media, messages
from kern_nb.records import Message, Requirement, Run, RunStatus, Usage
from kern_nb.runtime.events import CallEnded, CallStarted, Emit, Text
from kern_nb.runtime.threads import in_thread


@dataclass(frozen=True)
class Storage:
    """What of a run is kept.

    Attributes:
        media: Pictures and other files, by their hash.
        tool_messages: What tools gave; without it no result is kept anywhere.
        history_messages: A copy of the earlier messages that the model was told.
    """

    media: bool = True
    tool_messages: bool = True
    history_messages: bool = False


class Recorder:
    """The writer of one open run.

    Attributes:
        stored: The run as it was stored at its end, where all of it is known here; of a run that ``is_new``, and not
            of one that is continued.
    """

    def __init__(
        self,
        store: SessionStore,
        run: Run,
        state: dict[str, Any],
        storage: Storage,
        emit: Emit,
        *,
        is_new: bool = False,
    ) -> None:
        self.store = store
        self.run = run
        self.emit = emit
        self._state = state
        self._stored_state = codec.dumps(run.session_state or {})
        self._storage = storage
        self._begun: dict[str, float] = {}
        self._mended = {r.tool_call_id for r in run.requirements if r.approved and isinstance(r.answer, dict)}
        self._mended_args: dict[str, Any] = {}
        self.wrote = False
        self.unknown: set[str | None] = set()
        self._ids = {call.tool_call_id for m in run.messages for call in m.tool_calls}
        self._answered = {m.tool_call_id for m in run.messages if m.role == "tool"}
        self._began = time.monotonic()
        self._spent = run.duration_s or 0.0
        self._first_token_s: float | None = None
        self._usages = [m.usage for m in run.messages if not m.from_history]
        self._last: pai.ModelResponse | None = None
        self._half_said = ""
        self._writing = anyio.Lock()
        self.stored: Run | None = None
        self._held: list[Message] = []
        self._messages: list[Message] | None = list(run.messages) if is_new else None

    def keep(self, content: bytes, media_type: str | None) -> str | None:
        """Keep a file's bytes, where files are kept."""
        return self.store.put_blob(content, media_type) if self._storage.media else None

    def keep_result(self, content: bytes, media_type: str | None) -> str | None:
        """Keep the bytes of what a tool gave, where that is kept."""
        return self.keep(content, media_type) if self._storage.tool_messages else None

    async def opening(self, instructions: str | None, history: Sequence[Message], prompt: Any) -> None:
        """What the model is told first."""
        copies: list[Message] = []
        if self._storage.history_messages:
            copies = [_copy(m) for m in history if self._storage.tool_messages or not messages.is_result(m)]

        def write() -> None:
            first = opening_messages(instructions, copies, media.of_content(prompt, self.keep))
            self._note(self.store.append_messages(self.run.run_id, first))

        await in_thread(write)

    async def instructions(self, text: str | None) -> None:
        """What the model is told to be, where that was not said at the run's beginning."""
        if text:
            await self._append([Message(role="system", content=text)])

    async def prompt(self, content: Any) -> None:
        """What a user says in a run that goes on."""
        await self._append([messages.of_prompt(content)])

    async def request(self, request: pai.ModelRequest, *, opening: bool = False) -> None:
        """What the model is told next: of it, what is not written yet. The prompt of an opening one is."""
        parts = [part for part in request.parts if not (opening and isinstance(part, pai.UserPromptPart))]
        parts = [part for part in parts if not self._is_answered(part)]
        if not parts:
            await self.release()
            return
        found = await in_thread(lambda: [messages.of_part(part, self.keep_result) for part in parts])
        told = [message for message in found if message is not None]
        if not self._storage.tool_messages:
            told = [message for message in told if BY_TOOL not in message.internal]
        self._answered |= {m.tool_call_id for m in told if m.role == "tool"}
        for message in told:
            if message.role == "tool" and message.tool_call_id in self.unknown:
                message.internal[UNKNOWN] = True  # what the model is told does not end the call
        if told:
            await self._append(told)
        else:
            await self.release()

    def _is_answered(self, part: pai.ModelRequestPart) -> bool:
        """Whether a part is the result of a call, which was stored when its tool ended."""
        if isinstance(part, pai.RetryPromptPart):
            return part.tool_name is not None and part.tool_call_id in self._answered
        return isinstance(part, pai.ToolReturnPart) and part.tool_call_id in self._answered

    async def response(self, response: pai.ModelResponse) -> None:
        """What the model answered. An id that it used before in the run gets another, so that answers find it."""
        self._last = response
        for part in response.parts:
            if isinstance(part, pai.ToolCallPart):
                part.tool_call_id = self._unique(part.tool_call_id)
        if all(isinstance(part, pai.TextPart | pai.ToolCallPart) for part in response.parts):
            message = messages.of_response(response, self.keep)
        else:  # it may have files, which are kept
            message = await in_thread(lambda: messages.of_response(response, self.keep))
        for part in response.parts:
            if isinstance(part, pai.ToolCallPart) and isinstance(part.args, dict):
                part.args = media.tellable(part.args)  # what is stored is as the model gave it
        # A provider's clock is not ours, and messages are ordered by time too.
        stamped = message.model_copy(update={"created_at": datetime.now(UTC)})
        if not self._storage.tool_messages and PARTS in stamped.internal:
            stamped.internal[PARTS] = messages.without_results(stamped.internal[PARTS])
        self._usages.append(stamped.usage)
        if message.tool_calls:
            await self._append([stamped])
        else:
            codec.dumps([stamped.content, stamped.extra])  # what cannot be stored is refused here
            self.wrote = True
            self._held.append(stamped)
            self._half_said = ""  # it is whole now

    def _unique(self, given: str) -> str:
        name, n = given, 1
        while name in self._ids:
            n += 1
            name = f"{given}~{n}"
        self._ids.add(name)
        return name

    def first_token(self) -> None:
        """The answer begins to arrive."""
        if self._first_token_s is None:
            self._first_token_s = time.monotonic() - self._began

    def said(self, text: str) -> None:
        """The model said more of an answer, which is stored once it is whole, or the run ends before that."""
        self._half_said += text
        self.wrote = True
        self.emit(Text(text))

    def call_started(self, tool_call_id: str, tool_name: str, args: Any) -> None:
        """A tool is about to run; its row is there since the model asked for it."""
        self._begun[tool_call_id] = time.monotonic()
        if tool_call_id in self._mended:
            self._mended_args[tool_call_id] = media.plain_value(args)
        self.wrote = True
        self.emit(CallStarted(tool_call_id, tool_name, args))

    async def call_ended(self, tool_call_id: str, tool_name: str, result: media.Result, *, is_error: bool) -> None:
        """A tool has run: its result is stored before anything else happens, and what it changed of the state."""
        self._answered.add(tool_call_id)
        message = messages.of_result(tool_call_id, tool_name, result, is_error=is_error)
        if tool_call_id in self._begun:  # what it took itself, without the time that a person took before
            message.internal[DURATION_S] = time.monotonic() - self._begun[tool_call_id]
        if tool_call_id in self._mended_args:  # what it ran with is what its row says
            message.internal[ARGS] = self._mended_args[tool_call_id]
        try:
            changed, text = self._changed_state()
        except UnstorableValue:  # the tool has run all the same
            await self._append([message])
            raise
        await self._append([message], state=changed)
        self._stored_state = text
        self.emit(CallEnded(tool_call_id, tool_name, message.content, is_error))

    def _changed_state(self) -> tuple[dict[str, Any] | None, str]:
        """The state, where it is not the one that the run's row has; and its text."""
        state = frozen(self._state)
        text = codec.dumps(state)
        return (state if text != self._stored_state else None), text

    async def release(self) -> None:
        """Store an answer that was held back: what follows may take its time."""
        if self._held:
            await self._append([])

    async def _append(self, new: Sequence[Message], state: dict[str, Any] | None = None) -> None:
        self.wrote = True

        def write() -> None:
            kept = self._storage.tool_messages
            all_new = [*self._held, *new]
            self._note(self.store.append_messages(self.run.run_id, all_new, session_state=state, store_results=kept))
            self._held = []
            if any(message.role == "assistant" for message in new):
                self._half_said = ""  # it is whole now

        async with self._writing:  # so that messages are numbered as they were said
            await in_thread(write)

    def _note(self, stored: Sequence[Message]) -> None:
        """Note what was stored, as long as all of the run is known here."""
        if self._messages is None:
            return
        calls = {call.tool_call_id: call for message in self._messages for call in message.tool_calls}
        for message in stored:
            call = calls.get(message.tool_call_id) if message.role == "tool" else None
            if call is not None:
                call.result, call.status = message.content, result_status(message)
                call.duration_s = message.internal.get(DURATION_S)
            # A call may have ended otherwise: at an id that was used again, or without a time that is known here.
            if message.role == "tool" and (call is None or not isinstance(call.duration_s, float)):
                self._messages = None
                return
            self._messages.append(message)

    async def pause(self, requirements: Sequence[Requirement], output: Any = None) -> None:
        """The run waits."""
        await self.release()
        values = {"session_state": frozen(self._state), "duration_s": self._took(), "output": output}
        values["usage"] = Usage.total(self._usages)
        await in_thread(lambda: self.store.pause_run(self.run.run_id, requirements, **values))

    async def finish(self, status: RunStatus, *, output: Any = None, error: str | None = None) -> None:
        """The run ends, however it does; also when it is being cancelled. An answer that broke off is kept as it is."""
        values: dict[str, Any] = {"output": output, "error": error, "duration_s": self._took()}
        values |= {"usage": Usage.total(self._usages), "time_to_first_token_s": self._first_token_s}
        values |= self._final_state()
        if self._last is not None:
            values |= {"model": self._last.model_name, "model_provider": self._last.provider_name}

        def write() -> None:  # in one go: a run that is cancelled again meanwhile has ended all the same
            last = [*self._held]
            if self._half_said.strip():
                last.append(Message(role="assistant", content=self._half_said, partial=True))
            end = self.store.finish_run(self.run.run_id, status=status, **values, messages=last)
            self._held, self._half_said = [], ""
            self._note(end.messages)
            self._end(status, end, values)

        try:
            await in_thread(write)
            if self.run.requirements and not self._storage.tool_messages:
                await in_thread(lambda: self.store.forget_answers(self.run.run_id))
        except UnstorableValue as refused:
            if status == "COMPLETED":
                raise
            # The state is what could not be stored: the run ends with the one that was.
            values |= {"session_state": None, "state_unchanged": False, "error": error or str(refused)}
            await in_thread(write)

    def _final_state(self) -> dict[str, Any]:
        """The state, as `SessionStore.finish_run` takes it."""
        state = frozen(self._state)
        try:
            unchanged = codec.dumps(state) == self._stored_state
        except UnstorableValue:  # which is raised where it is stored
            unchanged = False
        return {"state_unchanged": True} if unchanged else {"session_state": state}

    def _end(self, status: RunStatus, end: RunEnd, values: dict[str, Any]) -> None:
        """Note the run as it was stored, where all of it is known here."""
        whole = self._messages is not None and status == "COMPLETED" and not self.run.requirements
        if not whole or not self._storage.tool_messages or self._messages is None:
            return
        calls = [call for message in self._messages for call in message.tool_calls]
        if any(call.status == "started" for call in calls):
            return
        known = {name: value for name, value in values.items() if value is not None and name != "state_unchanged"}
        known |= {"status": status, "session_state": end.session_state, "finished_at": end.finished_at}
        run = self.run.model_copy(update=known | {"messages": self._messages, "tool_calls": []})
        self.stored = as_stored(self.store.tables, run)

    async def give_up(self, error: str, status: RunStatus = "ERROR") -> None:
        """End the run, whatever went wrong; where even that cannot be written, this process gives it up."""
        try:
            await self.finish(status, error=error)
        except RunClosed:
            pass  # it had ended when it was cancelled
        except Exception:
            abandon(self.run.run_id)
            raise

    def _took(self) -> float:
        """The seconds that the run has worked, waiting for people left out."""
        return self._spent + time.monotonic() - self._began


def opening_messages(instructions: str | None, copies: Sequence[Message], prompt: Any) -> list[Message]:
    """The messages that a run begins with."""
    told = [Message(role="system", content=instructions)] if instructions else []
    return [*told, *copies, messages.of_prompt(prompt)]


def frozen(value: Any) -> Any:
    """A copy of a state that tools in other threads may be changing: a dict is copied in one step, then looked at."""
    if isinstance(value, dict):
        return {key: frozen(one) for key, one in dict(value).items()}
    return [frozen(one) for one in list(value)] if type(value) is list else value


def _copy(message: Message) -> Message:
    """An earlier message as a run keeps it: marked, without the calls and tokens that are counted where it stands."""
    calls = [{"tool_name": call.tool_name, "args": call.args} for call in message.tool_calls]
    kept: dict[str, Any] = {"usage": None, "tool_calls": [], "message_index": None, "from_history": True}
    kept |= {"extra": {"tool_calls": calls} if calls else {}, "internal": {}}
    return message.model_copy(update=kept)
