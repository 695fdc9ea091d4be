"""A progress line that is silent where nobody watches and where nothing takes long."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, Self, TypeVar

from kern_nb.environment import in_notebook

T = TypeVar("T")

_DELAY_S = 0.5
_INTERVAL_S = 0.1
_WIDTH = 30


class Progress:
    """Counts files and their records: one line of text in a notebook or on a terminal's error stream, else nothing.

    Args:
        total: The number of files.
        shown: Whether to show anything at all.
        what: The unit of the count, if it is not files and their records.
    """

    def __init__(self, total: int, *, shown: bool, what: str | None = None) -> None:
        self._what = what
        self._total = total
        self._done = self._records = 0
        self._start = time.monotonic()
        self._next = self._start + _DELAY_S
        self._notebook = shown and in_notebook()
        self._shown = self._notebook or (shown and sys.stderr.isatty())
        self._handle: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._next > self._start + _DELAY_S:  # something was shown
            self._show(self.summary(time.monotonic() - self._start), last=True)

    def line(self, bar: str) -> str:
        """Format the line while the work is in progress."""
        if self._what is not None:
            return f"{bar} {self._done:,} of {self._total:,} {self._what}"
        return f"{bar} {self._done} of {self._total} files, {self._records:,} records"

    def summary(self, duration: float) -> str:
        """Format the line after the work has ended."""
        if self._what is not None:
            return f"{self._done:,} of {self._total:,} {self._what} in {duration:.1f} s."
        return f"Read {self._done} of {self._total} files, {self._records:,} records, in {duration:.1f} s."

    def watch(self, records: Iterable[T]) -> Iterator[T]:
        """Yield the records of a file and count them."""
        for record in records:
            self._records += 1
            self.look()
            yield record

    def done(self, files: int) -> None:
        """Count files."""
        self._done += files
        self.look()

    def look(self) -> None:
        """Update the line if the interval has passed."""
        if self._shown and time.monotonic() >= self._next:
            self._next = time.monotonic() + _INTERVAL_S
            filled = round(_WIDTH * min(1.0, self._done / max(1, self._total)))
            self._show(self.line("█" * filled + "░" * (_WIDTH - filled)))

    def _show(self, text: str, *, last: bool = False) -> None:
        if not self._notebook:
            sys.stderr.write(f"\r\033[K{'' if last else text}")
            sys.stderr.flush()
            return
        from IPython.display import display

        bundle = {"text/plain": text}
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(bundle, raw=True)
