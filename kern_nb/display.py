"""`DisplayMixin`: how results find their views without importing them.

Views stand above the classes they show, so a class names its view as text, and the view is imported when it is needed.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, ClassVar


class DisplayMixin:
    """Show an object through the functions of a view module: as text in ``repr`` and ``str``, as HTML in a notebook.

    A class may define ``__repr__`` itself; then only the HTML comes from the view.

    Attributes:
        _view: The module and the prefix of its functions: ``"kern_nb.views.digest:digest"`` stands for ``digest_text``
            and ``digest_html``.
    """

    __slots__ = ()

    _view: ClassVar[str]

    def __repr__(self) -> str:
        return self._render("text")

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        return self._render("html")

    def _render(self, kind: str) -> str:
        module, _, prefix = self._view.partition(":")
        render: Any = getattr(import_module(module), f"{prefix}_{kind}")
        return str(render(self))
