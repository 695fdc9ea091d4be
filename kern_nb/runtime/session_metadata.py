"""The metadata of an agent, a team or a workflow, as that of its sessions."""

from __future__ import annotations

from typing import Any

from kern_nb.db import SessionStore
from kern_nb.errors import StaleSession

_MAX_ATTEMPTS = 5


def add_metadata(store: SessionStore, session_id: str, metadata: dict[str, Any]) -> None:
    """Set the keys of a session's metadata that it does not have."""
    for attempt in range(_MAX_ATTEMPTS):
        session = store.get_session(session_id, runs=False)
        current = (session.metadata if session else None) or {}
        if session is None or current.keys() >= metadata.keys():
            return
        session.metadata = metadata | current
        try:
            store.save_session(session, expected_revision=session.revision)
        except StaleSession:  # changed meanwhile
            if attempt == _MAX_ATTEMPTS - 1:
                raise
        else:
            return
