"""The notebook's face: `%kern` and `%%kern_sql`. Everything here is also one call of a script."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def load(shell: InteractiveShell) -> None:
    """Register the magics and the completer. A second time is harmless."""
    from kern_nb.magics.completer import register as register_completer
    from kern_nb.magics.magics import register as register_magics

    unload(shell)
    register_magics(shell)
    register_completer(shell)


def unload(shell: InteractiveShell) -> None:
    """Remove them. Attached stores stay: they belong to the process, as after `kern_nb.attach`."""
    from kern_nb.magics.completer import unregister as unregister_completer
    from kern_nb.magics.magics import unregister as unregister_magics

    unregister_magics(shell)
    unregister_completer(shell)
