"""Names that Tab offers and that have to be looked up: in a thread, and waited for only a moment.

A disk or a store that takes longer gives what was known before, or nothing; its answer is there at the next Tab.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Hashable

BUDGET_S = 0.05
FRESH_S = 2.0
_MOST_KEPT = 200


class Lookup:
    """A small cache in front of slow questions."""

    def __init__(self) -> None:
        self._known: dict[Hashable, tuple[float, list[str]]] = {}
        self._asking: dict[Hashable, threading.Thread] = {}

    def get(self, key: Hashable, ask: Callable[[], list[str]]) -> list[str]:
        """The answer to a question, as far as it is there within the budget.

        Args:
            key: What tells questions apart.
            ask: Finds the answer; what it raises counts as no answer.
        """
        at, names = self._known.get(key, (float("-inf"), []))
        if time.monotonic() - at < FRESH_S:
            return names
        thread = self._asking.get(key)
        if thread is None or not thread.is_alive():
            thread = threading.Thread(target=self._ask, args=(key, ask), name="kern_nb lookup", daemon=True)
            self._asking[key] = thread
            thread.start()
        thread.join(BUDGET_S)
        return self._known.get(key, (at, names))[1]

    def _ask(self, key: Hashable, ask: Callable[[], list[str]]) -> None:
        with contextlib.suppress(Exception):  # Tab has nobody to tell
            names = ask()
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            self._known[key] = (time.monotonic(), names)
        self._asking.pop(key, None)
