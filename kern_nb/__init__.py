"""Git for agent sessions, in your notebook.

Every name is imported at its first use, so that `import kern_nb` and `%load_ext kern_nb` are fast.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kern_nb._lazy import lazy_names
from kern_nb._version import __version__ as __version__

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from kern_nb.agent import Agent
    from kern_nb.analysis.compare import compare
    from kern_nb.analysis.costs import cost
    from kern_nb.analysis.groups import compare_groups
    from kern_nb.analysis.plots import plot
    from kern_nb.bridges import attach_agent, detach_agent
    from kern_nb.bridges.otel import listen
    from kern_nb.db import DuckDb, InMemoryDb, PostgresDb, SessionStore, SqliteDb, open_store
    from kern_nb.errors import KernError
    from kern_nb.ingest.format_table import formats
    from kern_nb.operations.export import export
    from kern_nb.operations.inbox import inbox
    from kern_nb.operations.local_import import follow, import_local, local_sessions
    from kern_nb.operations.rerun import arerun, rerun
    from kern_nb.operations.show import sessions, show
    from kern_nb.operations.summarize import summarize
    from kern_nb.records import Message, Requirement, Run, Session, SessionSummary, ToolCall, Usage
    from kern_nb.store_registry import attach, current_store, detach, stores, use
    from kern_nb.team import Team
    from kern_nb.widgets.browser.widget import browse
    from kern_nb.widgets.chat.widget import chat
    from kern_nb.workflow import Workflow

__all__ = [
    "Agent", "DuckDb", "InMemoryDb", "KernError", "Message", "PostgresDb", "Requirement", "Run", "Session",
    "SessionStore", "SessionSummary", "SqliteDb", "Team", "ToolCall", "Usage", "Workflow", "arerun", "attach",
    "attach_agent", "browse", "chat", "compare", "compare_groups", "cost", "current_store", "detach", "detach_agent",
    "export", "follow", "formats", "import_local", "inbox", "listen", "local_sessions", "open_store", "plot",
    "rerun", "sessions", "show", "stores", "summarize", "use",
]  # fmt: skip

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "kern_nb.agent": ["Agent"],
        "kern_nb.analysis.compare": ["compare"],
        "kern_nb.analysis.costs": ["cost"],
        "kern_nb.analysis.groups": ["compare_groups"],
        "kern_nb.analysis.plots": ["plot"],
        "kern_nb.bridges": ["attach_agent", "detach_agent"],
        "kern_nb.bridges.otel": ["listen"],
        "kern_nb.db": ["DuckDb", "InMemoryDb", "PostgresDb", "SessionStore", "SqliteDb", "open_store"],
        "kern_nb.errors": ["KernError"],
        "kern_nb.ingest.format_table": ["formats"],
        "kern_nb.operations.export": ["export"],
        "kern_nb.operations.inbox": ["inbox"],
        "kern_nb.operations.local_import": ["follow", "import_local", "local_sessions"],
        "kern_nb.operations.rerun": ["arerun", "rerun"],
        "kern_nb.operations.show": ["sessions", "show"],
        "kern_nb.operations.summarize": ["summarize"],
        "kern_nb.records": ["Message", "Requirement", "Run", "Session", "SessionSummary", "ToolCall", "Usage"],
        "kern_nb.store_registry": ["attach", "current_store", "detach", "stores", "use"],
        "kern_nb.team": ["Team"],
        "kern_nb.widgets.browser.widget": ["browse"],
        "kern_nb.widgets.chat.widget": ["chat"],
        "kern_nb.workflow": ["Workflow"],
    },
)


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics; `%load_ext kern_nb` calls this."""
    from kern_nb.magics import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove the magics; `%unload_ext kern_nb` calls this."""
    from kern_nb.magics import unload

    unload(shell)
    if lease := sys.modules.get("kern_nb.db.lease"):
        lease.unwatch_cells(shell)
