"""Heartbeats: while a process writes runs, it says so in their rows, every few seconds.

Whether a process of another host is alive cannot be seen from here (`process_identity`). Its run is interrupted only
when it has been silent for a time in which many heartbeats would have come. The time is that of the database server, as
the clocks of hosts differ; a file is shared within one machine, which has one clock.

One thread serves all stores of this process. It starts with a run and ends when no run is open any more.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.batches import batched
from kern_nb.db import cancel_signals
from kern_nb.db.process_identity import current_process
from kern_nb.db.sql_expressions import current_micros
from kern_nb.errors import StoreUnavailable
from kern_nb.extra_keys import CANCEL_REQUESTED

if TYPE_CHECKING:
    from kern_nb.db.database import Database

INTERVAL_S = 15.0
SILENT_S = 300.0
"""A process that is silent for so long is gone, unless it can be seen to be alive."""

_MOST_MISSES = 2
_CLOSE_S = 5.0


class _Heartbeats:
    """The open runs of this process, by store, with the number of heartbeats that did not find them."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._runs: WeakKeyDictionary[Database, dict[str, int]] = WeakKeyDictionary()
        self._thread: threading.Thread | None = None
        self._current: Database | None = None
        self._stopped = False

    def add(self, store: Database, run_id: str) -> None:
        with self._changed:
            self._runs.setdefault(store, {})[run_id] = 0
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._loop, name="kern_nb heartbeats", daemon=True)
                self._thread.start()

    def forget(self, store: Database) -> None:
        with self._changed:
            self._runs.pop(store, None)
            self._changed.wait_for(lambda: self._current is not store, _CLOSE_S)

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(1.0)

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped, INTERVAL_S)
                if self._stopped or not self._runs:
                    self._thread = None
                    return
            self._beat_all()

    def _beat_all(self) -> None:
        with self._changed:
            stores = list(self._runs)
        for store in stores:
            self._beat(store)

    def _beat(self, store: Database) -> None:
        with self._changed:
            runs = dict(self._runs.get(store, {}))
            self._current = store
        try:
            found = beat(store, runs)
        except StoreUnavailable:
            found = set()  # its file was removed
        except Exception:  # noqa: BLE001 - a store that is busy or cannot be reached: the next time
            found = set(runs)
        with self._changed:
            self._current = None
            self._changed.notify_all()
            remaining = self._runs.get(store)
            if remaining is None:
                return
            for run_id in runs.keys() - found:  # a run may not be committed yet
                remaining[run_id] = runs[run_id] + 1
                if remaining[run_id] >= _MOST_MISSES:
                    del remaining[run_id]
            if not remaining:
                del self._runs[store]


def beat(store: Database, run_ids: Iterable[str]) -> set[str]:
    """Store a heartbeat of those runs that this process still writes; returns them."""
    r = store.tables.runs
    found: set[str] = set()
    for batch in batched(run_ids):
        own = (r.c.run_id.in_(batch), r.c.status == "RUNNING", r.c.process == current_process())
        update = r.update().where(*own).values(heartbeat_at=current_micros())
        update = update.returning(r.c.run_id, r.c.internal)

        def work(connection: Connection, update: sa.UpdateBase = update) -> list[tuple[str, Any]]:
            return [(row[0], row[1]) for row in connection.execute(update)]

        for run_id, internal in store.write(work):
            found.add(run_id)
            if CANCEL_REQUESTED in (internal or {}):
                cancel_signals.notify(run_id)
    return found


_heartbeats = _Heartbeats()


def add(store: Database, run_id: str) -> None:
    """Send heartbeats of a run that this process writes, until it is no longer running."""
    if store.has_heartbeats:
        _heartbeats.add(store, run_id)


def forget(store: Database) -> None:
    """Send no more heartbeats to a store, which is closed."""
    _heartbeats.forget(store)


def _reset() -> None:
    """Leave the parent's runs to the parent, in a forked child."""
    global _heartbeats  # noqa: PLW0603 - its lock may be locked
    _heartbeats = _Heartbeats()


def _at_exit() -> None:
    _heartbeats.stop()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset)
