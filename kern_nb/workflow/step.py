"""One step of a workflow, where users of Agno look for it."""

from __future__ import annotations

from kern_nb.runtime.workflow_nodes import Step
from kern_nb.runtime.workflow_types import StepInput, StepOutput

__all__ = ["Step", "StepInput", "StepOutput"]
