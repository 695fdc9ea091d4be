"""Checks of parameters that agents, teams and workflows share."""

from __future__ import annotations

from typing import Any

from kern_nb.errors import BadUsage


def require_dict(parameter: str, value: Any, example: str = "{'team': 'sales'}") -> dict[str, Any]:
    """Return a dict; {} for None.

    Raises:
        BadUsage: the value is not a dict.
    """
    if not isinstance(value, dict | None):
        raise BadUsage(f"{parameter} must be a dict, got {value!r}.", f"For example: {parameter}={example}.")
    return value or {}


def require_state(value: Any) -> dict[str, Any]:
    """Return a session state; errors as for `require_dict`."""
    return require_dict("session_state", value, "{'items': []}")


def require_metadata(value: Any) -> dict[str, Any]:
    """Return the metadata of sessions and runs; {} for None.

    Raises:
        BadUsage: the value is not a dict with str keys.
    """
    if not isinstance(value, dict | None) or not all(isinstance(key, str) for key in value or ()):
        message = f"metadata must be a dict with str keys, got {value!r}."
        raise BadUsage(message, "For example: metadata={'env': 'test'}.")
    return value or {}


def require_count(parameter: str, value: Any) -> None:
    """Raise BadUsage for a count, a limit or a time that is neither None nor a number of at least 0."""
    if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0):
        message = f"{parameter} must be a number of at least 0, got {value!r}."
        raise BadUsage(message, f"For example: {parameter}=3.")


def require_text(parameter: str, value: Any) -> None:
    """Raise BadUsage for a value that is neither None nor a non-empty str."""
    if value is not None and (not isinstance(value, str) or not value):
        raise BadUsage(f"{parameter} must be a non-empty str, got {value!r}.", f"For example: {parameter}='chat'.")
