"""Calls from a widget's script to the kernel: how methods are exposed, validated, and how errors are reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from pydantic import ConfigDict, ValidationError, validate_call
from sqlalchemy.exc import DBAPIError

from kern_nb.errors import BadUsage, KernError, NotAStore, StoreBusy, StoreNotFound, StoreUnavailable
from kern_nb.text.formatting import single_line, truncate

Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "_kern_call"
_MAX_LENGTH = 500

STORE_GONE = (StoreUnavailable, StoreBusy, StoreNotFound, NotAStore)
"""Errors that attaching the store again may fix, like any OSError that is not a KernError."""


@overload
def call(function: Function, /) -> Function: ...
@overload
def call(*, slow: bool = False) -> Callable[[Function], Function]: ...
def call(function: Callable[..., Any] | None = None, /, *, slow: bool = False) -> Any:
    """Expose a method to the widget's script.

    Arguments are passed by name and validated strictly against the annotations. The result must be JSON: texts,
    numbers, lists and dicts of them, None. A slow method runs in a thread, and other calls are answered meanwhile.
    """

    def expose(method: Callable[..., Any]) -> Callable[..., Any]:
        validated = validate_call(config=ConfigDict(strict=True, arbitrary_types_allowed=True))(method)
        setattr(validated, _MARK, slow)
        return validated

    return expose if function is None else expose(function)


def remote_methods(cls: type) -> dict[str, bool]:
    """Return the exposed methods of a class, and whether each is slow."""
    # Class dictionaries instead of getattr: some attributes of ipywidgets warn.
    members = {name: member for base in reversed(cls.__mro__) for name, member in vars(base).items()}
    return {name: getattr(members[name], _MARK) for name in sorted(members) if hasattr(members[name], _MARK)}


def error_payload(error: BaseException) -> dict[str, Any]:
    """Convert an error for the widget: kind, message, hint, and whether attaching the store again may help."""
    if isinstance(error, ValidationError) and not isinstance(error, KernError):
        first = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        error = BadUsage(f"Invalid {name or 'argument'} from the widget: {first['msg']}.", "Run the cell again.")
    is_gone = isinstance(error, STORE_GONE) or (isinstance(error, OSError) and not isinstance(error, KernError))
    if isinstance(error, KernError):
        message, hint = str(error), error.hint
    elif isinstance(error, DBAPIError):  # its text includes the SQL
        message, hint, is_gone = str(error.orig).partition("\n")[0], "Attach the store again.", True
    else:
        message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        hint = "The full traceback is in .last_error of the widget."
    return {
        "kind": type(error).__name__,
        "message": truncate(single_line(message), _MAX_LENGTH),
        "hint": truncate(single_line(hint), _MAX_LENGTH),
        "gone": is_gone,
    }
