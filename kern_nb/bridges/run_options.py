"""Arguments of paused runs that a store cannot have, such as a context or a client; they last as long as the process.

A bridge notes them when a run pauses, and passes them again when kern_nb resumes it. What must be passed again is
stored by name, so that another process refuses to resume a run without it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from kern_nb.errors import BadUsage
from kern_nb.records import Run

_MAX_RUNS = 1000
_options: OrderedDict[str, dict[str, Any]] = OrderedDict()


def remember(run_id: str, options: Mapping[str, Any]) -> None:
    """Note the arguments of a run that paused."""
    _options.pop(run_id, None)
    _options[run_id] = dict(options)
    while len(_options) > _MAX_RUNS:
        _options.popitem(last=False)


def recall(run: Run, required: Iterable[Any], options: Mapping[str, Any], *, call: str) -> dict[str, Any]:
    """Return the arguments that resume a run: those of this process, and ``options``, which take precedence.

    Args:
        run: The run.
        required: The names of the arguments that it had.
        options: The arguments of the caller.
        call: The call that resumes it with further arguments, for the hint.

    Raises:
        BadUsage: An argument is missing: another process passed it.
    """
    arguments = {**_options.get(run.run_id, {}), **options}
    missing = [str(name) for name in required if name not in arguments]
    if missing:
        raise BadUsage(
            f"Run {run.session_id}/{run.run_index} was started with {', '.join(missing)}, which is not stored.",
            f"Pass it: {call.format(options=', '.join(f'{name}=...' for name in missing))}",
        )
    return arguments


def forget(run_id: str) -> None:
    """Forget the arguments of a run that has ended."""
    _options.pop(run_id, None)
