"""`RunState`: the session state during a run, which also has values of the run that are never stored."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kern_nb.db.open_runs import merge

if TYPE_CHECKING:
    from kern_nb.records import Run
    from kern_nb.runtime.context import RunContext
    from kern_nb.runtime.session_owner import SessionOwner
    from kern_nb.runtime.settings import OwnerSettings, Request


class RunState(dict[str, Any]):
    """The session state that tools read and change, plus values of the run, such as ``current_user_id``.

    Args:
        stored: The session state.
        run_values: The values of the run, which take precedence. What the session state has under the same keys stays
            stored as it is.
    """

    def __init__(self, stored: Mapping[str, Any], run_values: Mapping[str, Any]) -> None:
        super().__init__({**stored, **run_values})
        self._run_values = dict(run_values)
        self._covered = {key: stored[key] for key in run_values if key in stored}

    def replace(self, content: Mapping[str, Any]) -> None:
        """Replace the session state; the values of the run remain."""
        content = dict(content)
        self.clear()
        self.update(content)
        self.update(self._run_values)

    def to_store(self) -> dict[str, Any]:
        """Return a copy of the session state, without the values of the run."""
        covered = self._covered
        values = {key: covered.get(key, value) for key, value in dict(self).items() if self._is_stored(key)}
        return {key: snapshot(value) for key, value in values.items()}

    def _is_stored(self, key: str) -> bool:
        return key in self._covered or key not in self._run_values


def initial_state(settings: OwnerSettings, run: Run, request: Request) -> RunState:
    """Return the state at the start of a run: the caller's over the stored one over the agent's default.

    With ``overwrite_state``, the caller's or else the agent's default replaces the stored one. A run within another
    shares its state, and adds its own default.
    """
    if request.parent is not None:
        _add_missing(request.parent.session_state, settings.default_state)
        return request.parent.session_state
    replacement = (request.session_state or settings.default_state) if settings.overwrite_state else {}
    if replacement:
        return _open_state(copy.deepcopy(replacement), settings.owner, run, request.user_id)
    state = merge({}, copy.deepcopy(run.session_state or {}), copy.deepcopy(request.session_state))
    return _open_state(state, settings.owner, run, request.user_id)


def resumed_state(settings: OwnerSettings, run: Run, user_id: str | None, parent: RunContext | None) -> RunState:
    """Return the state of a run that is resumed."""
    if parent is not None:
        return parent.session_state
    return _open_state(copy.deepcopy(run.session_state or {}), settings.owner, run, user_id)


def _open_state(stored: Mapping[str, Any], owner: SessionOwner, run: Run, user_id: str | None) -> RunState:
    """Create the state of a run that is not part of another run, which would share its own."""
    values = {"current_session_id": run.session_id or "", "current_run_id": run.run_id}
    values |= {"current_user_id": user_id} if user_id else {}
    if owner.session_type == "workflow":
        values |= {"workflow_id": owner.id} | ({"workflow_name": owner.name} if owner.name else {})
    return RunState(stored, values)


def _add_missing(state: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    """Set the keys of a state that it lacks, at every depth."""
    for key, value in defaults.items():
        if key not in state:
            state[key] = copy.deepcopy(value)
        elif isinstance(value, dict) and isinstance(state[key], dict):
            _add_missing(state[key], value)


def snapshot(value: Any) -> Any:
    """Copy a state that tools in other threads may be changing: ``dict()`` copies in one step, before the iteration."""
    if isinstance(value, dict):
        return {key: snapshot(item) for key, item in dict(value).items()}
    return [snapshot(item) for item in list(value)] if type(value) is list else value
