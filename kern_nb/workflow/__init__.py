"""Workflows, and the nodes that they are built of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kern_nb._lazy import lazy_names

if TYPE_CHECKING:
    from kern_nb.runtime.workflow_nodes import Condition, Loop, Parallel, Step, StepInput, Steps
    from kern_nb.workflow.workflow import Workflow, WorkflowExchange

__all__ = ["Condition", "Loop", "Parallel", "Step", "StepInput", "Steps", "Workflow", "WorkflowExchange"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "kern_nb.runtime.workflow_nodes": ["Condition", "Loop", "Parallel", "Step", "StepInput", "Steps"],
        "kern_nb.workflow.workflow": ["Workflow", "WorkflowExchange"],
    },
)
