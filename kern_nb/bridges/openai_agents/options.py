"""The arguments of ``Runner.run`` that resume a paused run, too: its context, its session, its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kern_nb.bridges.openai_agents.session import KernSession

_OPTIONS = ("context", "session", "run_config", "error_handlers", "hooks", "max_turns")
_REQUIRED = ("context", "session", "run_config", "error_handlers")


def select_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a run that one that resumes it requires, too."""
    return {name: arguments[name] for name in _OPTIONS if arguments.get(name) is not None}


def describe_options(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored of them: whether the session is ours, and the names of those that must be passed again.

    A context that is a mapping is in the state of the run, and a `KernSession` is known by its id.
    """
    options = select_options(arguments)
    has_session = isinstance(options.get("session"), KernSession)
    required = [
        name
        for name in _REQUIRED
        if name in options
        and not (name == "session" and has_session)
        and not (name == "context" and isinstance(options[name], Mapping))
    ]
    return {"session": has_session, "options": required}
