"""What this process runs in: IPython's shell, a notebook or a terminal, and the user who is logged in."""

from __future__ import annotations

import getpass
import sys
from typing import Any


def current_shell() -> Any:
    """The IPython shell of this process, or None. IPython is not imported to find out."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this process."""
    return getattr(current_shell(), "kernel", None) is not None


def login_name() -> str | None:
    """The login name, or None if the system has none for this user (as in some containers)."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return None
