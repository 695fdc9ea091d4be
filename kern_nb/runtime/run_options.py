"""The keyword arguments of ``run`` and ``continue_run``, for the type checker; the methods document them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any, TypedDict

from kern_nb.events.base import BaseRunOutputEvent
from kern_nb.records import Run

Stream = Generator[BaseRunOutputEvent | Run, None, None]
"""What ``run(stream=True)`` returns; a run is among it with ``yield_run_output`` alone."""

AsyncStream = AsyncGenerator[BaseRunOutputEvent | Run, None]
"""What ``arun(stream=True)`` returns."""


class ResumeOptions(TypedDict, total=False):
    """Of ``continue_run``, without ``stream``."""

    session_id: str | None
    user_id: str | None
    stream_events: bool | None
    yield_run_output: bool


class RunOptions(ResumeOptions, total=False):
    """Of ``run``, without ``stream``."""

    session_state: dict[str, Any] | None


class AgentRunOptions(RunOptions, total=False):
    """Of an agent's or team's ``run``, without ``stream``."""

    images: Any
    audio: Any
    videos: Any
    files: Any


class WorkflowResumeOptions(ResumeOptions, total=False):
    """Of a workflow's ``continue_run``, without ``stream``."""

    rerun_interrupted: bool


class WorkflowRunOptions(RunOptions, total=False):
    """Of a workflow's ``run``, without ``stream``."""

    additional_data: dict[str, Any] | None
