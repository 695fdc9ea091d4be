"""`SaveFailed`: Agno logs the errors of its database and goes on; a warning is what the user sees."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from kern_nb.errors import KernError


class SaveFailed(UserWarning):
    """Something of a run or session was not saved. Agno returns the run as if it were."""


def warn_not_saved(what: str, error: KernError | str) -> None:
    """Warn that something was not saved."""
    hint = f" {error.hint}" if isinstance(error, KernError) and error.hint else ""
    warnings.warn(f"{what} was not saved: {error}{hint}", SaveFailed, stacklevel=2)


@contextmanager
def warning_of_failure(what: str) -> Iterator[None]:
    """Warn of an error, and raise it: Agno's caller may only log it."""
    try:
        yield
    except Exception as error:
        warn_not_saved(what, error if isinstance(error, KernError) else f"{type(error).__name__}: {error}")
        raise
