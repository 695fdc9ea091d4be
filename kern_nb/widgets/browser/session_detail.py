"""What the session browser shows of one session: its head, its family, its transcript part by part."""

from __future__ import annotations

from typing import Any

from kern_nb.db.references import Reference
from kern_nb.errors import RunNotFound, SessionNotFound
from kern_nb.records import Run, Session
from kern_nb.text import formatting
from kern_nb.widgets import media, transcript_data
from kern_nb.widgets.base import Widget, id_of, key_of
from kern_nb.widgets.browser import branch_tree, session_rows
from kern_nb.widgets.rpc import call


class Shown(Widget):
    """A widget that shows one session at a time.

    Attributes:
        place: What was clicked last, as ``chat`` or ``chat/2.5``; None before that.
    """

    place: str | None
    _shown: str | None

    @call
    def show(self, key: str) -> dict[str, Any]:
        """A session: what is said of it, its family, and the beginning of its transcript."""
        session = self._session(id_of(key))
        self._shown = self.place = session.session_id
        relatives = self.store.session_family(session.session_id)
        return {
            "key": key_of(session.session_id),
            **session_rows.head(session),
            "line": self.line("show", session.session_id),
            "family": branch_tree.tree(relatives, session.session_id),
            "transcript": self._part(session, transcript_data.Start()),
        }

    @call
    def hide(self) -> None:
        """No session is shown any more."""
        self._shown = self.place = None

    @call
    def more(self, key: str, run_index: int, place: int) -> dict[str, Any]:
        """The next part of a transcript."""
        return self._part(self._session(id_of(key)), transcript_data.Start(run_index, place))

    def _part(self, session: Session, start: transcript_data.Start) -> dict[str, Any]:
        runs = self.store.session_runs(session.session_id, start=start.run_index, limit=transcript_data.RUNS)
        return transcript_data.part(session, runs, start)

    @call
    def text(self, key: str, run_index: int, place: int, part: transcript_data.Part, number: int) -> dict[str, Any]:
        """A text of the transcript in full."""
        session = self._session(id_of(key))
        return transcript_data.whole(session, self._run(session, run_index), place, part, number)

    @call
    def picture(self, key: str, run_index: int, place: int, number: int, tool_call: int | None) -> dict[str, str]:
        """A picture of a message, or of the result of one of its calls."""
        session = self._session(id_of(key))
        content = transcript_data.held(session, self._run(session, run_index), place, tool_call)
        return media.picture(content, number, self.store)

    @call
    def point(self, key: str, run_index: int | None, message_index: int | None) -> str:
        """Remember what was clicked; the reference to it."""
        self.place = str(Reference(id_of(key), run_index, message_index))
        return formatting.escape_controls(self.place)

    def _session(self, session_id: str) -> Session:
        session = self.store.get_session(session_id, runs=False)
        if session is None:
            raise SessionNotFound(f"There is no session {session_id!r} any more.", "Refresh the list.")
        return session

    def _run(self, session: Session, run_index: int) -> Run:
        runs = self.store.session_runs(session.session_id, start=run_index, limit=1)
        if not runs:
            raise RunNotFound(f"{session.session_id!r} has no run {run_index} any more.", "Refresh the list.")
        return runs[0]
