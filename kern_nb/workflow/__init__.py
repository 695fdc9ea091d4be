"""Workflows, and the nodes that they are built of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kern_nb._lazy import lazy_names

if TYPE_CHECKING:
    from kern_nb.runtime.workflow_nodes import Condition, Loop, Parallel, Router, Step, Steps
    from kern_nb.runtime.workflow_types import (
        HumanReview,
        OnError,
        OnReject,
        OnTimeout,
        StepInput,
        StepOutput,
        UserInputField,
        WorkflowExecutionInput,
    )
    from kern_nb.workflow.decorators import pause
    from kern_nb.workflow.workflow import Workflow, WorkflowExchange

__all__ = [
    "Condition",
    "HumanReview",
    "Loop",
    "OnError",
    "OnReject",
    "OnTimeout",
    "Parallel",
    "Router",
    "Step",
    "StepInput",
    "StepOutput",
    "Steps",
    "UserInputField",
    "Workflow",
    "WorkflowExchange",
    "WorkflowExecutionInput",
    "pause",
]

_NODES = ["Condition", "Loop", "Parallel", "Router", "Step", "Steps"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "kern_nb.runtime.workflow_nodes": _NODES,
        "kern_nb.runtime.workflow_types": [
            "HumanReview",
            "OnError",
            "OnReject",
            "OnTimeout",
            "StepInput",
            "StepOutput",
            "UserInputField",
            "WorkflowExecutionInput",
        ],
        "kern_nb.workflow.decorators": ["pause"],
        "kern_nb.workflow.workflow": ["Workflow", "WorkflowExchange"],
    },
)
