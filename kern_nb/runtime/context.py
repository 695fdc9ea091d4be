"""`RunContext`: what a tool can read and change of its run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kern_nb.db import SessionStore

if TYPE_CHECKING:
    from kern_nb.runtime.recorder import Recorder
    from kern_nb.runtime.run_state import RunState
    from kern_nb.runtime.workspace import Workspace


INJECTABLE = ("run_context", "session_state", "agent")
"""The parameter names that a run fills in, of a tool or of a function for instructions."""


@dataclass
class RunContext:
    """The current run, for a tool's parameter of this type, or of the name ``run_context``.

    Attributes:
        run_id: The run.
        session_id: Its session.
        user_id: The owner of the session.
        session_state: The session's state. A tool's changes are stored when the tool ends; assigning another dict
            replaces the whole content. Its ``current_user_id``, ``current_session_id`` and ``current_run_id`` (that of
            a team or workflow, in its members and steps) are those of the run, and never stored.
        agent: The agent, team or workflow of the run.
        store: The store of the session.
        tool_call_id: In a tool, the call: the same id if another process resumes the run.
        model: The model of the run, which members without one use.
    """

    run_id: str
    session_id: str
    user_id: str | None
    session_state: RunState
    agent: Any
    store: SessionStore
    recorder: Recorder = field(repr=False)
    tool_call_id: str | None = None
    model: Any = field(default=None, repr=False)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. The state stays one dict, shared by everything in the run: only its content is replaced."""
        if name == "session_state" and name in self.__dict__:
            self.session_state.replace(value)
        else:
            super().__setattr__(name, value)

    def injectable_values(self) -> dict[str, Any]:
        """Return the values of the parameters that a run fills in; see `INJECTABLE`."""
        return dict(zip(INJECTABLE, (self, self.session_state, self.agent), strict=True))

    @property
    def workspace(self) -> Workspace:
        """The session's files."""
        from kern_nb.runtime.workspace import Workspace

        return Workspace(self.store, self.session_state, folder=self.recorder.folder)
