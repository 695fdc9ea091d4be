"""How a run came about: the cell of the notebook that made it, asked by every run."""

from __future__ import annotations

import os
from typing import Any

from kern_nb.environment import current_shell


def here() -> dict[str, Any] | None:
    """The cell that is being executed by the calling thread, or that started it.

    Returns:
        In a kernel ``{"notebook": path, "cell_id": id, "execution_count": n}``, each None where it is not known: not
        every frontend says it, and a callback of a widget belongs to no cell. In IPython's terminal only the
        ``execution_count``. Outside of IPython None. Never an error.
    """
    try:
        return _here()
    except Exception:  # noqa: BLE001 - a run must not fail because nobody knows where it was started
        return None


def _here() -> dict[str, Any] | None:
    shell = current_shell()
    if shell is None:
        return None
    if getattr(shell, "kernel", None) is None:
        return {"execution_count": shell.execution_count}
    # ipykernel keeps it for each thread and task: several cells may be at work at once.
    request = shell.get_parent() or {}
    is_cell = request.get("header", {}).get("msg_type") == "execute_request"
    return {
        "notebook": _notebook(shell.user_ns),
        "cell_id": request.get("metadata", {}).get("cellId") if is_cell else None,
        "execution_count": _count(shell, request["content"]) if is_cell else None,
    }


def _notebook(variables: dict[str, Any]) -> str | None:
    """The path: VS Code sets a variable, Jupyter's server the environment; for a console that is no path."""
    path = variables.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME") or ""
    return path if isinstance(path, str) and os.path.splitext(path)[1] else None  # noqa: PTH122 - it may be a URL


def _count(shell: Any, cell: dict[str, Any]) -> int | None:
    """The number of the cell: it is that of the shell, or, in a task that outlives its cell, the one before."""
    if not cell.get("store_history", True):
        return None  # such a cell is not counted
    for count in (shell.execution_count, shell.execution_count - 1):
        if shell.user_ns.get(f"_i{count}") == cell["code"].rstrip("\n"):
            return int(count)
    return None
