"""The provenance of a run: the notebook cell that made it."""

from __future__ import annotations

import os
from typing import Any

from kern_nb.environment import current_shell


def current_cell() -> dict[str, Any] | None:
    """Return the cell that the calling thread executes, or that started the thread.

    Returns:
        In a kernel ``{"notebook": path, "cell_id": id, "execution_count": n}``, with None for what is unknown: not
        every frontend sends it, and a callback of a widget has no cell. In IPython's terminal only the
        ``execution_count``. Outside of IPython, or after an error, None.
    """
    try:
        shell = current_shell()
        if shell is None:
            return None
        if getattr(shell, "kernel", None) is None:
            return {"execution_count": shell.execution_count}
        # ipykernel keeps one for each thread and task, because several cells may run concurrently.
        request = shell.get_parent() or {}
        is_cell = request.get("header", {}).get("msg_type") == "execute_request"
        return {
            "notebook": _notebook(shell.user_ns),
            "cell_id": request.get("metadata", {}).get("cellId") if is_cell else None,
            "execution_count": _count(shell, request["content"]) if is_cell else None,
        }
    except Exception:  # noqa: BLE001 - a run must not fail because its origin is unknown
        return None


def _notebook(variables: dict[str, Any]) -> str | None:
    """Return the path: VS Code sets a variable, Jupyter's server the environment; a console has no path."""
    path = variables.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME") or ""
    return path if isinstance(path, str) and os.path.splitext(path)[1] else None  # noqa: PTH122 - it may be a URL


def _count(shell: Any, cell: dict[str, Any]) -> int | None:
    """Return the cell's execution count: the shell's, or in a task that outlives its cell, the previous one."""
    if not cell.get("store_history", True):
        return None  # such a cell has no count
    for count in (shell.execution_count, shell.execution_count - 1):
        if shell.user_ns.get(f"_i{count}") == cell["code"].rstrip("\n"):
            return int(count)
    return None
