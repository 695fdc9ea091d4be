"""Progress is shown in notebooks and terminals, and only for long operations."""

from __future__ import annotations

import io
import sys

import pytest

from kern_nb.text import progress
from kern_nb.text.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves by a second at each look, or stands still."""

    class Clock:
        now, step = 0.0, 1.0

        def monotonic(self):
            self.now += self.step
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.fixture
def notebook(monkeypatch):
    """A kernel; what is displayed and updated there."""
    shown = []

    class Handle:
        def update(self, bundle, *, raw):
            shown.append(("update", bundle["text/plain"]))

    def display(bundle, *, raw, display_id):
        shown.append(("display", bundle["text/plain"]))
        return Handle()

    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", display)
    return shown


def work(bar, files=3):
    for _ in range(files):
        assert list(bar.watch(range(2))) == [0, 1]
        bar.done(1)


def test_a_notebook_shows_one_line_that_becomes_a_summary(clock, notebook):
    """One display, updated in place; a saved notebook keeps the last text."""
    with Progress(3, shown=True) as bar:
        work(bar)

    assert [kind for kind, _ in notebook] == ["display"] + ["update"] * (len(notebook) - 1)
    assert notebook[-1][1].startswith("Read 3 of 3 files, 6 records, in ")


def test_a_short_operation_shows_nothing(clock, notebook):
    """Under half a second there is neither a line nor a summary."""
    clock.step = 0.0
    with Progress(3, shown=True) as bar:
        work(bar)

    assert notebook == []


def test_progress_can_be_disabled(clock, notebook):
    """``progress=False`` shows nothing, however long the operation takes."""
    with Progress(3, shown=False) as bar:
        work(bar)

    assert notebook == []


@pytest.mark.parametrize("terminal", [True, False])
def test_outside_a_notebook_only_a_terminal_shows_progress(clock, monkeypatch, terminal):
    """The line goes to the error stream of a terminal and is erased at the end; a log or a pipe gets nothing."""
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(3, shown=True) as bar:
        work(bar)

    assert bool(stream.getvalue()) is terminal
    if terminal:
        assert "2 of 3 files, 4 records" in stream.getvalue()
        assert stream.getvalue().endswith("\r\033[K")
