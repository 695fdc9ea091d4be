"""Calls from a widget's script to the kernel: which there are, how they are checked, and what an error becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from pydantic import ConfigDict, ValidationError, validate_call
from sqlalchemy.exc import DBAPIError

from kern_nb.errors import BadUsage, KernError, NotAStore, StoreBusy, StoreNotFound, StoreUnavailable
from kern_nb.text.formatting import single_line, truncate

Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "_kern_call"
_LONGEST = 500

GONE = (StoreUnavailable, StoreBusy, StoreNotFound, NotAStore)
"""Errors of ours that attaching the store again may mend; so may any OSError that is not of ours."""


@overload
def call(function: Function, /) -> Function: ...
@overload
def call(*, slow: bool = False) -> Callable[[Function], Function]: ...
def call(function: Callable[..., Any] | None = None, /, *, slow: bool = False) -> Any:
    """Let the widget's script call a method; it can call no other.

    The arguments come by name and are checked against the annotations, strictly: a text is no number. What the method
    returns must be JSON: texts, numbers, lists and dicts of them, None.

    Args:
        function: The method.
        slow: Whether it may take longer than a moment. It then runs in a thread; others are answered meanwhile.
    """

    def marked(method: Callable[..., Any]) -> Callable[..., Any]:
        checked = validate_call(config=ConfigDict(strict=True, arbitrary_types_allowed=True))(method)
        setattr(checked, _MARK, slow)
        return checked

    return marked if function is None else marked(function)


def calls_of(kind: type) -> dict[str, bool]:
    """The names that may be called on objects of a class, and whether each is slow."""
    # What stands in the classes, not getattr: asking ipywidgets for some of its attributes warns.
    members = {name: member for base in reversed(kind.__mro__) for name, member in vars(base).items()}
    return {name: getattr(members[name], _MARK) for name in sorted(members) if hasattr(members[name], _MARK)}


def told(error: BaseException) -> dict[str, Any]:
    """An error as the widget shows it: what happened, what to do next, and whether to offer to attach again."""
    if isinstance(error, ValidationError) and not isinstance(error, KernError):
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        error = BadUsage(f"The widget sent a wrong {place or 'argument'}: {first['msg']}.", "Run the cell again.")
    gone = isinstance(error, GONE) or (isinstance(error, OSError) and not isinstance(error, KernError))
    if isinstance(error, KernError):
        message, hint = str(error), error.hint
    elif isinstance(error, DBAPIError):  # whose own text is followed by the SQL
        message, hint, gone = str(error.orig).partition("\n")[0], "Is it still the same store? Attach it again.", True
    else:
        message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        hint = "The widget's .last_error has the whole traceback."
    kind = type(error).__name__
    return {
        "kind": kind,
        "message": truncate(single_line(message), _LONGEST),
        "hint": truncate(single_line(hint), _LONGEST),
        "gone": gone,
    }
