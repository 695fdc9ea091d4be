"""What the functions of a workflow receive and return, and how a person reviews its nodes; from `kern_nb.runtime`."""

from __future__ import annotations

from kern_nb.runtime.workflow_types import (
    HumanReview,
    IterationOutputs,
    OnError,
    OnReject,
    OnTimeout,
    StepInput,
    StepOutput,
    UserInputField,
    WorkflowExecutionInput,
)

__all__ = [
    "HumanReview",
    "IterationOutputs",
    "OnError",
    "OnReject",
    "OnTimeout",
    "StepInput",
    "StepOutput",
    "UserInputField",
    "WorkflowExecutionInput",
]
