"""Writes a run as it happens: each message when it is said, each result when its tool ends.

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
from kern_nb.db.check import abandon
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
    """The writer of one open run."""

    def __init__(self, store: SessionStore, run: Run, state: dict[str, Any], storage: Storage, emit: Emit) -> None:
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

    def keep(self, content: bytes, media_type: str | None) -> str | None:
        """Keep a file's bytes, where files are kept."""
        return self.store.put_blob(content, media_type) if self._storage.media else None

    def keep_result(self, content: bytes, media_type: str | None) -> str | None:
        """Keep the bytes of what a tool gave, where that is kept."""
        return self.keep(content, media_type) if self._storage.tool_messages else None

    async def opening(self, instructions: str | None, history: Sequence[Message], prompt: Any) -> None:
        """What the model is told first."""
        told = [Message(role="system", content=instructions)] if instructions else []
        if self._storage.history_messages:
            told += [_copy(m) for m in history if self._storage.tool_messages or not messages.is_result(m)]

        def write() -> None:
            content = messages.of_prompt(media.of_content(prompt, self.keep))
            self.store.append_messages(self.run.run_id, [*told, content])

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
        if not parts:
            return
        found = await in_thread(lambda: [messages.of_part(part, self.keep_result) for part in parts])
        told = [message for message in found if message is not None]
        if not self._storage.tool_messages:
            told = [message for message in told if BY_TOOL not in message.internal]
        new = [m for m in told if m.role != "tool" or m.tool_call_id not in self._answered]
        if new:
            self._answered |= {m.tool_call_id for m in new if m.role == "tool"}
            for message in new:
                if message.role == "tool" and message.tool_call_id in self.unknown:
                    message.internal[UNKNOWN] = True  # what the model is told does not end the call
            await self._append(new)

    async def response(self, response: pai.ModelResponse) -> None:
        """What the model answered. An id that it used before in the run gets another, so that answers find it."""
        self._last = response
        for part in response.parts:
            if isinstance(part, pai.ToolCallPart):
                part.tool_call_id = self._unique(part.tool_call_id)
        message = await in_thread(lambda: messages.of_response(response, self.keep))
        for part in response.parts:
            if isinstance(part, pai.ToolCallPart) and isinstance(part.args, dict):
                part.args = media.tellable(part.args)  # what is stored is as the model gave it
        # A provider's clock is not ours, and messages are ordered by time too.
        stamped = message.model_copy(update={"created_at": datetime.now(UTC)})
        if not self._storage.tool_messages and PARTS in stamped.internal:
            stamped.internal[PARTS] = messages.without_results(stamped.internal[PARTS])
        self._usages.append(stamped.usage)
        await self._append([stamped])

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
            changed = self._changed_state()
        except UnstorableValue:  # the tool has run all the same
            await self._append([message])
            raise
        await self._append([message], state=changed)
        self.emit(CallEnded(tool_call_id, tool_name, message.content, is_error))

    def _changed_state(self) -> dict[str, Any] | None:
        state = frozen(self._state)
        now = codec.dumps(state)
        changed = state if now != self._stored_state else None
        self._stored_state = now
        return changed

    async def _append(self, new: Sequence[Message], state: dict[str, Any] | None = None) -> None:
        self.wrote = True

        def write() -> None:
            stored = self._storage.tool_messages
            self.store.append_messages(self.run.run_id, new, session_state=state, store_results=stored)
            if any(message.role == "assistant" for message in new):
                self._half_said = ""  # it is whole now

        async with self._writing:  # so that messages are numbered as they were said
            await in_thread(write)

    async def pause(self, requirements: Sequence[Requirement], output: Any = None) -> None:
        """The run waits."""
        values = {"session_state": frozen(self._state), "duration_s": self._took(), "output": output}
        values["usage"] = Usage.total(self._usages)
        await in_thread(lambda: self.store.pause_run(self.run.run_id, requirements, **values))

    async def finish(self, status: RunStatus, *, output: Any = None, error: str | None = None) -> None:
        """The run ends, however it does; also when it is being cancelled. An answer that broke off is kept as it is."""
        values: dict[str, Any] = {"output": output, "error": error, "duration_s": self._took()}
        values |= {
            "usage": Usage.total(self._usages),
            "session_state": frozen(self._state),
            "time_to_first_token_s": self._first_token_s,
        }
        if self._last is not None:
            values |= {"model": self._last.model_name, "model_provider": self._last.provider_name}

        def write() -> None:  # in one go: a run that is cancelled again meanwhile has ended all the same
            if self._half_said.strip():
                broken_off = Message(role="assistant", content=self._half_said, partial=True)
                self.store.append_messages(self.run.run_id, [broken_off])
            self._half_said = ""
            self.store.finish_run(self.run.run_id, status=status, **values)

        try:
            await in_thread(write)
            if self.run.requirements and not self._storage.tool_messages:
                await in_thread(lambda: self.store.forget_answers(self.run.run_id))
        except UnstorableValue as refused:
            if status == "COMPLETED":
                raise
            # The state is what could not be stored: the run ends with the one that was.
            values |= {"session_state": None, "error": error or str(refused)}
            await in_thread(lambda: self.store.finish_run(self.run.run_id, status=status, **values))

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
