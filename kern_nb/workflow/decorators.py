"""`pause`: marks a function whose step a person reviews."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from kern_nb.runtime.workflow_nodes import PAUSE_OPTIONS

__all__ = ["pause"]

F = TypeVar("F", bound=Callable[..., Any])


def pause(name: str | None = None, **review: Any) -> Callable[[F], F]:
    """Return a decorator of a function, whose step then has these parameters.

    Example:
        >>> from kern_nb import InMemoryDb, Workflow
        >>> from kern_nb.workflow import pause
        >>> @pause(requires_confirmation=True, confirmation_message="Send it?")
        ... def send(step):
        ...     return "sent"
        >>> run = Workflow([send], db=InMemoryDb()).run("a letter")
        >>> run.status, run.requirements[0].prompt
        ('PAUSED', 'Send it?')

    Args:
        name: The name of the step; that of the function where None.
        **review: Fields of `HumanReview`.
    """

    def mark(function: F) -> F:
        setattr(function, PAUSE_OPTIONS, review | ({} if name is None else {"name": name}))
        return function

    return mark
