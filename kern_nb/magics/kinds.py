"""The words that a line may hold: frames, kinds of plots, statuses, and how a word is checked against them."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence

from kern_nb.errors import did_you_mean

FRAMES = ("sessions", "runs", "messages", "tool_calls", "scores")

PLOTS = ("runs", "tools", "tree")

# Written out, because importing the records costs more than a load of this extension may. A test compares them.
STATUSES = ("PENDING", "RUNNING", "PAUSED", "COMPLETED", "CANCELLED", "ERROR", "REGENERATED", "INTERRUPTED")


def one_of(noun: str, words: Sequence[str], normal: Callable[[str], str] = str) -> Callable[[str], str]:
    """An argparse type that takes one of these words. Its complaint has a second line: the hint."""

    def check(word: str) -> str:
        if normal(word) in words:
            return normal(word)
        hint = did_you_mean(normal(word), words, f"Choose from {', '.join(words)}.")
        raise ArgumentTypeError(f"there is no {noun} {word!r}.\n{hint}")

    return check
