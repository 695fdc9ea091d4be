"""The keys that a session state has only during a run."""

from __future__ import annotations

from typing import Any

RUN_KEYS = ("current_user_id", "current_session_id", "current_run_id", "workflow_id", "workflow_name")


def without_run_keys(state: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a state that are stored."""
    return {key: value for key, value in state.items() if key not in RUN_KEYS}
