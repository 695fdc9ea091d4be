"""The keyword arguments of ``run`` and ``continue_run``, for the type checker; the methods document them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any, TypedDict

from kern_nb.events.base import BaseRunOutputEvent
from kern_nb.record_methods.requirements import ToolExecution
from kern_nb.records import Requirement, Run
from kern_nb.runtime.continuation import ContinueFrom

Stream = Generator[BaseRunOutputEvent | Run, None, None]
"""What ``run(stream=True)`` returns; a run is among it with ``yield_run_output`` alone."""

AsyncStream = AsyncGenerator[BaseRunOutputEvent | Run, None]
"""What ``arun(stream=True)`` returns."""


class _CommonOptions(TypedDict, total=False):
    """Of both, without ``stream``."""

    session_id: str | None
    user_id: str | None
    stream_events: bool | None
    yield_run_output: bool


class ResumeOptions(_CommonOptions, total=False):
    """Of ``continue_run``, without ``stream``."""

    run_response: Run | None
    requirements: Sequence[Requirement] | None
    updated_tools: Sequence[ToolExecution] | None
    input: Any
    continue_from: ContinueFrom
    fork: bool
    regenerate: bool


class RunOptions(_CommonOptions, total=False):
    """Of ``run``, without ``stream``."""

    session_state: dict[str, Any] | None


class AgentRunOptions(RunOptions, total=False):
    """Of an agent's or team's ``run``, without ``stream``."""

    images: Any
    audio: Any
    videos: Any
    files: Any


class WorkflowResumeOptions(_CommonOptions, total=False):
    """Of a workflow's ``continue_run``, without ``stream``."""

    run_response: Run | None
    requirements: Sequence[Requirement] | None
    step_requirements: Sequence[Requirement] | None
    rerun_interrupted: bool


class WorkflowRunOptions(RunOptions, total=False):
    """Of a workflow's ``run``, without ``stream``."""

    additional_data: dict[str, Any] | None
