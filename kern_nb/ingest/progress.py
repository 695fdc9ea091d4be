"""A progress bar that is silent where nobody watches, and where nothing takes long."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from kern_nb.environment import in_notebook

T = TypeVar("T")

# Seconds before anything is shown, and between two looks.
_PATIENCE = 0.5
_PAUSE = 0.1
_WIDTH = 30


class Progress:
    """Files done and records read: one line of text in a notebook, or on a terminal's error stream; elsewhere nothing.

    Args:
        total: The number of files.
        shown: Whether to show anything at all.
        what: What is counted, where it is not files and the records in them.
    """

    def __init__(self, total: int, *, shown: bool, what: str | None = None) -> None:
        self._what = what
        self._total = total
        self._done = self._records = 0
        self._began = time.monotonic()
        self._next = self._began + _PATIENCE
        self._notebook = shown and in_notebook()
        self._shown = self._notebook or (shown and sys.stderr.isatty())
        self._handle: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._next > self._began + _PATIENCE:  # something was shown
            took = time.monotonic() - self._began
            self._show(self.summary(took), last=True)

    def line(self, bar: str) -> str:
        """What is shown while it goes on."""
        if self._what is not None:
            return f"{bar} {self._done:,} of {self._total:,} {self._what}"
        return f"{bar} {self._done} of {self._total} files, {self._records:,} records"

    def summary(self, took: float) -> str:
        """What is shown in the end."""
        if self._what is not None:
            return f"{self._done:,} of {self._total:,} {self._what} in {took:.1f} s."
        return f"Read {self._done} of {self._total} files, {self._records:,} records, in {took:.1f} s."

    def watch(self, records: Iterable[T]) -> Iterator[T]:
        """The records of a file, counted as they are read."""
        for record in records:
            self._records += 1
            self.look()
            yield record

    def done(self, files: int) -> None:
        """Count files."""
        self._done += files
        self.look()

    def look(self) -> None:
        """Show how far it is, where it is time for that."""
        if self._shown and time.monotonic() >= self._next:
            self._next = time.monotonic() + _PAUSE
            full = round(_WIDTH * min(1.0, self._done / max(1, self._total)))
            bar = "█" * full + "░" * (_WIDTH - full)
            self._show(self.line(bar))

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
