"""`SessionType` as an enumeration, and `BaseDb`: `SessionStore` under Agno's name."""

from __future__ import annotations

from enum import StrEnum

from kern_nb.db.store import SessionStore as BaseDb

__all__ = ["BaseDb", "SessionType"]


class SessionType(StrEnum):
    """The kinds of sessions; each equals its text."""

    AGENT = "agent"
    TEAM = "team"
    WORKFLOW = "workflow"
