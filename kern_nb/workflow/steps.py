"""Steps one after the other, where users of Agno look for it."""

from __future__ import annotations

from kern_nb.runtime.workflow_nodes import Steps

__all__ = ["Steps"]
