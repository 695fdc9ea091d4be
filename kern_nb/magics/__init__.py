"""The notebook interface: `%kern` and `%%kern_sql`. A script does the same with the functions of `kern_nb`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load(shell: InteractiveShell) -> None:
    """Register the magics and the completer. A second call is harmless."""
    from kern_nb.magics import completer, magics

    unload(shell)
    magics.register(shell)
    completer.register(shell)


def unload(shell: InteractiveShell) -> None:
    """Remove the magics and the completer. Attached stores stay: they belong to the process."""
    from kern_nb.magics import completer, magics

    magics.unregister(shell)
    completer.unregister(shell)
