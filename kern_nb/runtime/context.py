"""`RunContext`: what a tool may know of the run it is called in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kern_nb.db import SessionStore

if TYPE_CHECKING:
    from kern_nb.runtime.recorder import Recorder
    from kern_nb.runtime.workspace import Workspace


ASKED_FOR = ("run_context", "session_state", "agent")


@dataclass
class RunContext:
    """The run at hand: what a tool gets as a parameter of this type, or of the name ``run_context``.

    Attributes:
        run_id: The run.
        session_id: Its session.
        user_id: Whose session it is.
        session_state: The session's state. What a tool sets here is stored when the tool ends; another dict that is
            assigned takes the place of all that is in it.
        agent: The agent, team or workflow that runs.
        store: Where the session is stored.
        tool_call_id: In a tool, the call: the same one if the run is gone on with in another process.
    """

    run_id: str
    session_id: str
    user_id: str | None
    session_state: dict[str, Any]
    agent: Any
    store: SessionStore
    recorder: Recorder = field(repr=False)
    tool_call_id: str | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. The state is one dict, which all that works in the run shares: what is in it changes."""
        if name == "session_state" and name in self.__dict__:
            value = dict(value)
            self.session_state.clear()
            self.session_state.update(value)
        else:
            super().__setattr__(name, value)

    def by_name(self) -> dict[str, Any]:
        """What a tool, or a function for instructions, may ask for by the names of its parameters: see `ASKED_FOR`."""
        return dict(zip(ASKED_FOR, (self, self.session_state, self.agent), strict=True))

    @property
    def workspace(self) -> Workspace:
        """The session's files."""
        from kern_nb.runtime.workspace import Workspace

        return Workspace(self.store, self.session_state)
