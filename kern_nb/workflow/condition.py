"""Steps that run if a condition holds, where users of Agno look for it."""

from __future__ import annotations

from kern_nb.runtime.workflow_nodes import Condition

__all__ = ["Condition"]
