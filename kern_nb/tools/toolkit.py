"""`Toolkit`, where users of Agno look for it."""

from __future__ import annotations

from kern_nb.runtime.toolkits import Toolkit

__all__ = ["Toolkit"]
