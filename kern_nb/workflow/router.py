"""`Router`; from `kern_nb.runtime.workflow_nodes`."""

from __future__ import annotations

from kern_nb.runtime.workflow_nodes import Router

__all__ = ["Router"]
