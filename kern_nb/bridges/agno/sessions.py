"""Agno's sessions, as records and back, and saving them beside other savers."""

from __future__ import annotations

import time
from typing import Any, TypeAlias

from agno.session import AgentSession, TeamSession, WorkflowSession

from kern_nb.db.open_runs import merge
from kern_nb.db.store import SessionStore
from kern_nb.errors import BadUsage, StaleSession
from kern_nb.interop.agno import json_value
from kern_nb.records import Session, SessionType

AnySession: TypeAlias = AgentSession | TeamSession | WorkflowSession
JsonObject = dict[str, Any]

_FIELDS = (
    "session_id", "session_type", "agent_id", "team_id", "workflow_id", "user_id", "session_data", "agent_data",
    "team_data", "workflow_data", "metadata", "summary", "created_at", "updated_at",
)  # fmt: skip
_BASE = "_kern_nb_base"
_METRICS = "session_metrics"
_TRIES = 50


class Base:
    """The session as it was when Agno's object of it was read or saved; copies of the object share it."""

    def __init__(self, record: Session | None) -> None:
        self.record = record


def remember(session: Any, record: Session | None) -> None:
    """Note the record that an object of Agno's was made of."""
    base = getattr(session, _BASE, None)
    if base is None:
        setattr(session, _BASE, Base(record))
    else:
        base.record = record


def base_of(session: Any) -> Base | None:
    """The base of an object of Agno's; None if it was not read from this store."""
    base: Base | None = getattr(session, _BASE, None)
    return base


def session_type(session: AnySession) -> SessionType:
    """The type of a session."""
    if isinstance(session, AgentSession):
        return "agent"
    if isinstance(session, TeamSession):
        return "team"
    if isinstance(session, WorkflowSession):
        return "workflow"
    raise BadUsage(f"{type(session).__name__} is not a session of Agno's.", "Pass an AgentSession, for example.")


def to_record(session: AnySession) -> Session:
    """The record of a session of Agno's, with the fields that Agno stores of it."""
    data = json_value(session.to_dict(include_runs=False))
    kind = session_type(session)
    names = (f"{kind}_id", "user_id", f"{kind}_data", "session_data", "metadata", "summary")
    fields = {name: data.get(name) for name in names}
    fields["user_id"] = None if fields["user_id"] is None else str(fields["user_id"])
    created_at = data.get("created_at") or int(time.time())
    return Session(session_id=session.session_id, session_type=kind, created_at=created_at, **fields)


def to_row(record: Session) -> JsonObject:
    """The row that Agno's database returns of a session."""
    row = {name: getattr(record, name) for name in _FIELDS}
    return json_value(row)  # type: ignore[no-any-return] # a copy, as the caller may change it


def state_of(record: Session) -> JsonObject:
    """The state in a session's data."""
    state = (record.session_data or {}).get("session_state")
    return state if isinstance(state, dict) else {}


def save(store: SessionStore, record: Session, base: Session | None) -> Session:
    """Save a session; what others changed since ``base`` stays. None as base: nothing was stored then."""
    new = record.session_data
    expected, current = (0, None) if base is None else (base.revision or 0, base)
    for _ in range(_TRIES):
        if current is not None and current is not base:
            record.session_data = _merged(base, current, new)
            record.created_at = current.created_at
        try:
            return store.save_session(record, expected_revision=expected)
        except StaleSession:
            current = store.get_session(record.session_id, runs=False)
            expected = 0 if current is None else current.revision or 0
    return store.save_session(record)


def _merged(base: Session | None, current: Session, new: JsonObject | None) -> JsonObject | None:
    """The current data with the changes from ``base`` to ``new``: key by key, and counters added up."""
    before, now, after = (base.session_data if base else None) or {}, current.session_data or {}, new or {}
    data = merge(before, now, after)
    if isinstance(after.get(_METRICS), dict):
        data[_METRICS] = _add(before.get(_METRICS), now.get(_METRICS), after[_METRICS])
    return data or None


def _add(before: Any, now: Any, after: Any) -> Any:
    """What is stored now, with what was counted from ``before`` to ``after``."""
    if isinstance(after, dict):
        before, now = before if isinstance(before, dict) else {}, now if isinstance(now, dict) else {}
        return now | {key: _add(before.get(key), now.get(key), value) for key, value in after.items()}
    if isinstance(after, list) and all(isinstance(item, dict) and "id" in item for item in after):  # of each model
        olds, currents = (_by_model(items) for items in (before, now))
        models = {key: _add(olds.get(key), currents.get(key), item) for key, item in _by_model(after).items()}
        return list((currents | models).values())
    if isinstance(after, (int, float)) and not isinstance(after, bool):
        first, last = (v if isinstance(v, (int, float)) else 0 for v in (before, now))
        return last + (after - first)
    return after


def _by_model(items: Any) -> dict[Any, JsonObject]:
    many = items if isinstance(items, list) else []
    return {(item.get("provider"), item.get("id")): item for item in many if isinstance(item, dict)}
