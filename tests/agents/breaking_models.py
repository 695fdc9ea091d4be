"""A model whose answers break off while they are streamed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from kern_nb.interop import messages as ours
from kern_nb.records import Message

HELD = object()
"""In an answer: the stream stalls here."""


def half_a_call(tool_name: str) -> dict[int, DeltaToolCall]:
    """Return the beginning of a tool call: its name, and half of its arguments."""
    return {5: DeltaToolCall(tool_name, '{"path": "im', tool_call_id="call_half")}


class Breaking:
    """Streams these answers in order, each a list of pieces; an exception among the pieces is raised.

    `to_messages` records the requests, `held` is set when a stream stalls.
    """

    def __init__(self, *answers: list[Any]) -> None:
        self.told: list[list[Message]] = []
        self.held = threading.Event()
        self._answers = iter(answers)
        self.model = FunctionModel(stream_function=self._stream, model_name="breaking")

    async def _stream(self, told: list[ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        self.told.append(ours.to_messages(told, None))
        for piece in next(self._answers):
            if piece is HELD:
                self.held.set()
                await asyncio.Event().wait()
            if isinstance(piece, Exception):
                raise piece
            yield piece
