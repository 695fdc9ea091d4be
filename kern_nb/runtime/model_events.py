"""The events of a model's answer as it is streamed: from pydantic-ai's to those of the run."""

from __future__ import annotations

from typing import Any

from pydantic_ai.messages import (
    ModelResponse,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
)

from kern_nb.events import base
from kern_nb.interop import messages
from kern_nb.runtime.recorder import Recorder

_USAGE_FIELDS = (
    "input_tokens", "output_tokens", "total_tokens", "reasoning_tokens", "cache_read_tokens", "cache_write_tokens",
)  # fmt: skip


def record(event: Any, recorder: Recorder) -> None:
    """Pass a streamed event of the model on."""
    is_start = isinstance(event, PartStartEvent)
    part = event.part if is_start else getattr(event, "delta", None)
    delta = ""
    if is_start and isinstance(part, TextPart):
        delta = part.content
    elif isinstance(part, TextPartDelta):
        delta = part.content_delta
    if delta or is_start:
        recorder.first_token()
    if delta:
        recorder.add_text(delta)
    if is_start and isinstance(part, ThinkingPart):
        recorder.events.emit(base.ReasoningStarted)
    if isinstance(part, ThinkingPart | ThinkingPartDelta):
        reasoning = part.content if isinstance(part, ThinkingPart) else part.content_delta
        if reasoning:
            recorder.events.emit(base.ReasoningDelta, reasoning_content=reasoning)
    elif isinstance(event, PartEndEvent) and isinstance(event.part, ThinkingPart):
        recorder.events.emit(base.ReasoningEnded, content=event.part.content)


def record_usage(response: ModelResponse, recorder: Recorder) -> None:
    """Pass on that a request is completed."""
    usage = messages.usage_of(response)
    fields = {name: getattr(usage, name) for name in _USAGE_FIELDS} if usage is not None else {}
    names = {"model": response.model_name, "model_provider": response.provider_name}
    recorder.events.emit(base.RequestCompleted, **names, **fields)
