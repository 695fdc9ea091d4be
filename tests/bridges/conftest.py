"""A notebook for the tests of attached agents."""

from __future__ import annotations

from notebook_shell import attached_stores, notebook, plain_notebook

__all__ = ["attached_stores", "notebook", "plain_notebook"]  # fixtures
