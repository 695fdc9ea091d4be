"""`RunRecording`: the capability that records one run of an agent as it happens.

The run's row is stored with its first messages, before the model is called; a response with calls before its tools run;
a tool's result when the tool ends; the last response with the end of the run. Every write is awaited in a thread, and
completed when the run is cancelled. What cannot be stored ends the run with the store's error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from pydantic_ai import messages as pai
from pydantic_ai.capabilities import AbstractCapability, CapabilityOrdering
from pydantic_ai.exceptions import (
    ApprovalRequired,
    CallDeferred,
    ModelRetry,
    SkipToolExecution,
    ToolFailed,
    ToolFailedError,
    ToolRetryError,
)
from pydantic_ai.messages import ToolReturn
from pydantic_ai.tools import DeferredToolRequests, DeferredToolResults, RunContext

from kern_nb.bridges.pydantic_ai.run_writer import RunStart, RunWriter
from kern_nb.db.store import SessionStore
from kern_nb.interop import media


@dataclass(frozen=True)
class _Caller:
    """The tool call of a recorded run in which another agent runs."""

    writer: RunWriter
    tool_call_id: str


_caller: ContextVar[_Caller | None] = ContextVar("kern_nb_pydantic_ai_caller", default=None)


class RunRecording(AbstractCapability[Any]):
    """Records one run in a store.

    Args:
        store: The store.
        results: The results with which it resumes a paused run.
        options: The arguments of the run that one that resumes it requires, too.
    """

    def __init__(
        self,
        store: SessionStore,
        results: DeferredToolResults | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._store = store
        self._results = results
        self._options = options or {}
        self._writer: RunWriter | None = None
        self._messages: Sequence[pai.ModelMessage] = ()

    @classmethod
    def get_serialization_name(cls) -> str | None:
        """It is of one run, and no part of an agent's specification."""
        return None

    def get_ordering(self) -> CapabilityOrdering:
        """Outside of the others: it records what they made of the run."""
        return CapabilityOrdering(position="outermost")

    async def for_run(self, ctx: RunContext[Any]) -> RunRecording:
        """A recording of its own for each run."""
        del ctx
        return RunRecording(self._store, self._results, self._options)

    async def wrap_run(self, ctx: RunContext[Any], *, handler: Any) -> Any:
        """Store how the run ends."""
        caller = _caller.get()
        start = RunStart(
            run_id=ctx.run_id or "",
            session_id=caller.writer.session_id if caller else ctx.conversation_id or "",
            agent_id=ctx.agent.name if ctx.agent is not None else None,
            model=getattr(ctx.model, "model_name", None),
            model_provider=getattr(ctx.model, "system", None),
            prompt=ctx.prompt,
            metadata=ctx.metadata,
            parent_run_id=caller.writer.run_id if caller else None,
            tool_call_id=caller.tool_call_id if caller else None,
        )
        self._writer = writer = RunWriter(self._store, start, list(ctx.messages))
        if self._results is not None:
            await writer.resume(self._results)
        try:
            result = await handler()
        except BaseException as error:
            is_cancelled = isinstance(error, (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt))
            text = "cancelled" if is_cancelled else f"{type(error).__name__}: {error}"
            await writer.fail("CANCELLED" if is_cancelled else "ERROR", text, self._own(ctx, self._messages))
            raise
        new = self._own(ctx, result.all_messages())
        if isinstance(result.output, DeferredToolRequests):
            await writer.pause(result.output, new, result.all_messages(), self._options)
        else:
            await writer.finish(result.output, new)
        return result

    async def before_node_run(self, ctx: RunContext[Any], *, node: Any) -> Any:
        """Store a response with calls, before its tools run."""
        self._messages = ctx.messages
        response = getattr(node, "model_response", None)
        if self._writer is not None and response is not None and response.tool_calls:
            await self._writer.write(self._own(ctx, ctx.messages))
        return node

    async def prepare_model_request(self, ctx: RunContext[Any], request_context: Any) -> Any:
        """Store the request, before the model is called."""
        self._messages = ctx.messages
        if self._writer is not None:
            await self._writer.write(self._own(ctx, ctx.messages), prompt=ctx.prompt)
        return request_context

    async def wrap_tool_execute(
        self, ctx: RunContext[Any], *, call: pai.ToolCallPart, tool_def: Any, args: Any, handler: Any
    ) -> Any:
        """Store a tool's result when it ends. A call that waits for a person has none."""
        del tool_def
        writer = self._writer
        if writer is None:
            return await handler(args)
        edited = self._edited_args(call.tool_call_id)
        writer.call_started(call.tool_call_id)
        token = _caller.set(_Caller(writer, call.tool_call_id))
        try:
            result = await handler(args)
        except (ToolRetryError, ToolFailedError) as error:
            part = error.tool_retry if isinstance(error, ToolRetryError) else error.tool_failed
            if isinstance(part, pai.ToolReturnPart):
                await writer.call_failed(part)
            raise
        except (CallDeferred, ApprovalRequired, SkipToolExecution, ModelRetry, ToolFailed):
            raise  # not a result yet: the next request has it
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            await writer.call_ended(call.tool_call_id, call.tool_name, text, is_error=True, args=edited)
            raise
        finally:
            _caller.reset(token)
        value = result.return_value if isinstance(result, ToolReturn) else result
        await writer.call_ended(call.tool_call_id, call.tool_name, value, args=edited)
        return result

    def _own(self, ctx: RunContext[Any], all_messages: Sequence[pai.ModelMessage]) -> list[pai.ModelMessage]:
        """The messages of this run."""
        return [message for message in all_messages if message.run_id == ctx.run_id]

    def _edited_args(self, tool_call_id: str) -> Mapping[str, Any] | None:
        """The arguments with which a person approved a call, if they changed them."""
        approval = self._results.approvals.get(tool_call_id) if self._results is not None else None
        edited = getattr(approval, "override_args", None)
        return media.plain_value(edited) if edited is not None else None
