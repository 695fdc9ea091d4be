"""`InMemoryDb`, where users of Agno look for it."""

from __future__ import annotations

from kern_nb.db.memory import InMemoryDb

__all__ = ["InMemoryDb"]
