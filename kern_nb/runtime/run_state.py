"""`RunState`: the session state during a run, which also has values of the run that are never stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kern_nb.records import Run
    from kern_nb.runtime.session_owner import SessionOwner


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


def open_state(stored: Mapping[str, Any], owner: SessionOwner, run: Run, user_id: str | None) -> RunState:
    """Create the state of a run that is not part of another run, which would share its own."""
    values = {"current_session_id": run.session_id or "", "current_run_id": run.run_id}
    values |= {"current_user_id": user_id} if user_id else {}
    if owner.session_type == "workflow":
        values |= {"workflow_id": owner.id} | ({"workflow_name": owner.name} if owner.name else {})
    return RunState(stored, values)


def snapshot(value: Any) -> Any:
    """Copy a state that tools in other threads may be changing: ``dict()`` copies in one step, before the iteration."""
    if isinstance(value, dict):
        return {key: snapshot(item) for key, item in dict(value).items()}
    return [snapshot(item) for item in list(value)] if type(value) is list else value
