"""What a store of kern_nb has no place for: Agno's memories, knowledge, evals, traces, learnings and the like.

Another database of Agno's takes them, if there is one; otherwise each method raises `NotInStore`.
"""

from __future__ import annotations

import inspect
import warnings
from abc import update_abstractmethods
from collections.abc import Callable
from typing import Any, TypeVar

from agno.db.base import BaseDb

from kern_nb.bridges.agno.warnings import SaveFailed
from kern_nb.errors import KernError

T = TypeVar("T", bound=type)

_SUBJECTS = {
    "memor": "memories",
    "knowledge": "knowledge",
    "eval": "evals",
    "span": "traces",
    "trace": "traces",
    "learning": "learnings",
    "metrics": "daily metrics",
    "approval": "approvals",
    "schedule": "schedules",
    "component": "components",
    "config": "components",
    "tool_result": "offloaded tool results",
    "compaction": "compactions",
    "transcript": "transcripts of external agents",
    "schema_version": "schema versions",
}
_WRITES = ("create_", "upsert_", "append_", "record_", "insert_", "store_")


class NotInStore(KernError, NotImplementedError):
    """A store of kern_nb has sessions and runs of Agno, and nothing else of it."""


def refusal(method: str) -> NotInStore:
    """The error of a method of Agno's for which a store has no place."""
    subject = next((name for part, name in _SUBJECTS.items() if part in method), "this data")
    return NotInStore(
        f"A store of kern_nb has no place for Agno's {subject} (AgnoDb.{method}).",
        "Pass a database of Agno's for everything but sessions: AgnoDb(store, others=SqliteDb(db_file='agno.db')).",
    )


def passes_others_on(cls: T) -> T:
    """Define each method of Agno's that a database class lacks: it calls the other database, or raises."""
    for name, method in inspect.getmembers(BaseDb, inspect.isfunction):
        if (
            not name.startswith("_")
            and getattr(cls, name) is method
            and "raise NotImplementedError" in inspect.getsource(method)
        ):
            setattr(cls, name, _passed_on(name, method))
    update_abstractmethods(cls)
    return cls


def _passed_on(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.others is not None:
            return getattr(self.others, name)(*args, **kwargs)
        error = refusal(name)
        if name.startswith(_WRITES):  # Agno passes over it
            warnings.warn(f"{error} {error.hint}", SaveFailed, stacklevel=3)
        raise error

    method.__name__, method.__qualname__ = name, f"AgnoDb.{name}"
    method.__doc__ = original.__doc__ or f"See `BaseDb.{name}`; of ``others``."
    method.__signature__ = inspect.signature(original)  # type: ignore[attr-defined]
    return method
