"""The open session of the session browser: its header, its branch tree, and its transcript in parts."""

from __future__ import annotations

from typing import Any

from kern_nb.db.references import Reference
from kern_nb.errors import RunNotFound, SessionNotFound
from kern_nb.records import Run, Session
from kern_nb.text import formatting
from kern_nb.widgets import media, transcript_data
from kern_nb.widgets.base import Widget, decode_key, encode_key
from kern_nb.widgets.browser import session_rows
from kern_nb.widgets.rpc import call


class SessionDetail(Widget):
    """A widget that shows one session at a time."""

    place: str | None
    _session_id: str | None

    @call
    def show(self, key: str) -> dict[str, Any]:
        """Open a session: its header, its branch tree, and the beginning of its transcript."""
        session = self._load_session(key)
        self._session_id = self.place = session.session_id
        tree = self.store.session_family(session.session_id)
        return {
            "key": encode_key(session.session_id),
            **session_rows.session_header(session),
            "line": self.line("show", session.session_id),
            "family": session_rows.build_tree(tree, session.session_id),
            "transcript": self._part(session, transcript_data.Start()),
        }

    @call
    def hide(self) -> None:
        """Close the session."""
        self._session_id = self.place = None

    @call
    def more(self, key: str, run_index: int, position: int) -> dict[str, Any]:
        """Return the next part of a transcript."""
        return self._part(self._load_session(key), transcript_data.Start(run_index, position))

    def _part(self, session: Session, start: transcript_data.Start) -> dict[str, Any]:
        runs = self.store.session_runs(session.session_id, start=start.run_index, limit=transcript_data.MAX_RUNS)
        return transcript_data.transcript_part(session, runs, start)

    @call
    def text(self, key: str, run_index: int, position: int, part: transcript_data.Part, number: int) -> dict[str, Any]:
        """Return a text of the transcript in full."""
        session, run = self._load_run(key, run_index)
        return transcript_data.full_text(session, run, position, part, number)

    @call
    def picture(self, key: str, run_index: int, position: int, number: int, tool_call: int | None) -> dict[str, str]:
        """Return an image of a message, or of the result of one of its tool calls."""
        session, run = self._load_run(key, run_index)
        return media.load_picture(transcript_data.stored_content(session, run, position, tool_call), number, self.store)

    @call
    def point(self, key: str, run_index: int | None, message_index: int | None) -> str:
        """Store the reference that was clicked, and return it."""
        self.place = str(Reference(decode_key(key), run_index, message_index))
        return formatting.escape_controls(self.place)

    def _load_session(self, key: str) -> Session:
        session_id = decode_key(key)
        session = self.store.get_session(session_id, runs=False)
        if session is None:
            raise SessionNotFound(f"Session {session_id!r} no longer exists.", "Refresh the list.")
        return session

    def _load_run(self, key: str, run_index: int) -> tuple[Session, Run]:
        session = self._load_session(key)
        runs = self.store.session_runs(session.session_id, start=run_index, limit=1)
        if not runs:
            raise RunNotFound(f"Session {session.session_id!r} no longer has run {run_index}.", "Refresh the list.")
        return session, runs[0]
