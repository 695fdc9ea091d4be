"""Tools, where users of Agno look for them: the names of `kern_nb.agent`, and `Toolkit`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kern_nb._lazy import lazy_names

if TYPE_CHECKING:
    from kern_nb.runtime.context import RunContext
    from kern_nb.runtime.toolkits import Toolkit
    from kern_nb.runtime.tools import Tool, handoff, tool

__all__ = ["RunContext", "Tool", "Toolkit", "handoff", "tool"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "kern_nb.runtime.context": ["RunContext"],
        "kern_nb.runtime.toolkits": ["Toolkit"],
        "kern_nb.runtime.tools": ["Tool", "handoff", "tool"],
    },
)
