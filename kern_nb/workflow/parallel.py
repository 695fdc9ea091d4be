"""Steps that run concurrently, where users of Agno look for it."""

from __future__ import annotations

from kern_nb.runtime.workflow_nodes import Parallel

__all__ = ["Parallel"]
