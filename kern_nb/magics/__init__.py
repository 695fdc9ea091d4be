"""The notebook interface: `%kern` and `%%kern_sql`. A script does the same with the functions of `kern_nb`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load(shell: InteractiveShell) -> None:
    """Register the magics and the completer. A second call is harmless."""
    from kern_nb.magics.completer import register as register_completer
    from kern_nb.magics.magics import register as register_magics

    unload(shell)
    register_magics(shell)
    register_completer(shell)


def unload(shell: InteractiveShell) -> None:
    """Remove the magics and the completer. Attached stores stay: they belong to the process."""
    from kern_nb.magics.completer import unregister as unregister_completer
    from kern_nb.magics.magics import unregister as unregister_magics

    unregister_magics(shell)
    unregister_completer(shell)
