"""What runs wait for, and the answers. Each function works in one transaction.

A requirement is answered by a compare-and-set on its row: of several who answer at once, one finds it unanswered, and
the others are told who was faster.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import damaged_rows, mapping, reads, run_claims
from kern_nb.db.references import Reference, locate
from kern_nb.db.run_claims import NAMED
from kern_nb.db.schema import starts_with
from kern_nb.errors import (
    AlreadyClaimed,
    AlreadyResolved,
    AmbiguousReference,
    BadUsage,
    RequirementNotFound,
    RunClosed,
)
from kern_nb.records import UNRESOLVED_STATUSES, Requirement

if TYPE_CHECKING:
    from kern_nb.db.database import Database


def find_requirement(connection: Connection, store: Database, reference: str, user_id: str | None = None) -> RowMapping:
    """The row of a requirement: by its id, or its session or run where that waits for one thing only; or by prefixes.

    Raises:
        RequirementNotFound, AmbiguousReference: it names none, or several.
    """
    q, s = store.tables.requirements, store.tables.sessions
    every = sa.select(q)
    if user_id is not None:  # another user's are not there
        every = every.join(s, s.c.session_id == q.c.session_id).where(s.c.user_id == user_id)
    exact = connection.execute(every.where(q.c.requirement_id == reference)).mappings().first()
    if exact is not None:
        return exact
    place = _place(connection, store, reference, user_id) if reference else None
    found: list[RowMapping] = [] if place is None else list(_of_place(connection, store, place))
    if reference and not (place is not None and _is_exact(place, reference)):
        by_prefix = every.where(starts_with(q.c.requirement_id, reference)).limit(NAMED + 1)
        also = connection.execute(by_prefix).mappings().all()
        known = {row["requirement_id"] for row in found}
        found += [row for row in also if row["requirement_id"] not in known]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f"{row['requirement_id']} ({row['tool_name'] or row['kind']})" for row in found[:NAMED])
        raise AmbiguousReference(f"{reference!r} fits several requirements: {names}.", "Write one of their ids.")
    if place is not None:
        hint = f"See it: %kern show {place}; what waits elsewhere: %kern inbox"
        raise RequirementNotFound(f"Nothing in {str(place)!r} waits for an answer.", hint)
    raise RequirementNotFound(f"Nothing waits as {reference!r}.", "See what does: %kern inbox")


def _place(connection: Connection, store: Database, reference: str, user_id: str | None = None) -> Reference | None:
    """The session or run of a reference; None where there is none.

    Raises:
        AmbiguousReference: a prefix that fits several.
    """
    try:
        return locate(connection, store.tables, reference, user_id)
    except KeyError:
        return None


def _is_exact(place: Reference, reference: str) -> bool:
    """Whether a reference spells its session out: what is spelt out goes before what is begun."""
    return reference == place.session_id or reference.startswith(f"{place.session_id}/")


def _of_place(connection: Connection, store: Database, place: Reference) -> Sequence[RowMapping]:
    """What is unanswered in a session or a run."""
    q, r = store.tables.requirements, store.tables.runs
    query = sa.select(q).where(q.c.session_id == place.session_id, q.c.status.in_(UNRESOLVED_STATUSES))
    if place.run_index is not None:
        # A team's run waits for what its members' runs wait for.
        at = sa.select(r.c.run_id).where(r.c.session_id == place.session_id, r.c.run_index == place.run_index)
        query = query.where(
            q.c.run_id.in_(reads.run_tree_ids(connection, store.tables, connection.execute(at).scalar()))
        )
    return connection.execute(query.order_by(q.c.created_at)).mappings().all()


def requirements(
    connection: Connection,
    store: Database,
    *,
    session_id: str | None,
    run_id: str | None,
    user_id: str | None,
    assignee: str | None,
    status: str | Sequence[str] | None,
    run_status: str | None,
) -> list[Requirement]:
    """See `SessionStore.requirements`."""
    q, r, s = store.tables.requirements, store.tables.runs, store.tables.sessions
    query = sa.select(q)
    if run_status is not None:
        query = query.join(r, r.c.run_id == q.c.run_id).where(r.c.status == run_status)
    if session_id is not None:
        query = query.where(q.c.session_id == session_id)
    if run_id is not None:
        query = query.where(q.c.run_id.in_(reads.run_tree_ids(connection, store.tables, run_id)))
    if user_id is not None:
        query = query.join(s, s.c.session_id == q.c.session_id).where(s.c.user_id == user_id)
    if assignee is not None:
        query = query.where(q.c.assignee == assignee)
    wanted = [status] if isinstance(status, str) else status
    if wanted is not None:
        # Those whose time is over may not have been noted as such.
        query = query.where(q.c.status.in_({*wanted, *(UNRESOLVED_STATUSES if "expired" in wanted else ())}))
    query = query.order_by(q.c.created_at, q.c.requirement_id).with_only_columns(
        *map(damaged_rows.raw, q.columns), maintain_column_froms=True
    )
    every = []
    for stored in connection.execute(query).mappings():
        row, damaged = damaged_rows.readable(store.tables, "requirements", stored)
        if damaged:
            damaged_rows.require_readable(store, "requirements", stored, only=session_id or run_id)
            continue
        every.append(row | {"status": "expired"} if run_claims.has_expired(row) else row)
    return [mapping.requirement_from_row(row) for row in every if wanted is None or row["status"] in wanted]


def resolve(
    connection: Connection,
    store: Database,
    reference: str,
    *,
    approve: bool | None,
    args: dict[str, Any] | None,
    value: Any,
    note: str | None,
    by: str | None,
    user_id: str | None = None,
) -> Requirement:
    """See `SessionStore.resolve`. An expired one comes back as such, so that its expiry is kept."""
    row = find_requirement(connection, store, reference, user_id)
    if run_claims.has_expired(row):
        return run_claims.expire(connection, store, row)
    _require_waiting(connection, store, row)
    approved, answer = _answer(row, approve=approve, args=args, value=value)
    done = {
        "status": "resolved",
        "approved": approved,
        "answer": answer,
        "resolved_at": run_claims.micros_now(),
        "resolved_by": by,
    }
    return _set(connection, store, row, done | ({} if note is None else {"note": note}), by)


def _require_waiting(connection: Connection, store: Database, row: RowMapping) -> None:
    """A run that ended, or was cancelled, waits no more.

    Raises:
        AlreadyResolved, RunClosed: it is answered, or its run does not wait.
    """
    if row["status"] not in UNRESOLVED_STATUSES or run_claims.has_expired(row):
        raise _too_late(
            mapping.requirement_from_row({**row, "status": "expired"} if run_claims.has_expired(row) else row)
        )
    r = store.tables.runs
    status = connection.execute(sa.select(r.c.status).where(r.c.run_id == row["run_id"])).scalar()
    if status != "PAUSED":
        q = store.tables.requirements
        again = sa.select(q).where(q.c.requirement_id == row["requirement_id"], q.c.status.not_in(UNRESOLVED_STATUSES))
        answered = connection.execute(again).mappings().first()
        if answered is not None:  # since the row was read; and someone went on with the run already
            raise _too_late(mapping.requirement_from_row(answered))
        raise RunClosed(f"Run {row['run_id']} does not wait: it is {status}.", "Nothing was changed.")


def _answer(row: RowMapping, *, approve: bool | None, args: dict[str, Any] | None, value: Any) -> tuple[bool, Any]:
    """Whether the call may go on, and the answer, checked against what was asked."""
    name = row["requirement_id"]
    with contextlib.suppress(ValueError):  # of an array of several
        approve = getattr(approve, "item", lambda: approve)()  # numpy's, from a cell of a frame
    if not isinstance(approve, bool | None):
        raise BadUsage(f"approve={approve!r} is neither True nor False.", f"Answer {name} with approve=True or False.")
    if not isinstance(args, dict | None):
        raise BadUsage(f"args={args!r} is no dict.", "Give the arguments by name: args={'path': 'x'}.")
    if approve is False:
        if args is not None or value is not None:
            raise BadUsage(f"A refusal of {name} takes no arguments and no value.", "Give the reason as note=.")
        return False, None
    if row["kind"] == "confirmation":
        if value is not None or (approve is None and args is None):
            raise BadUsage(
                f"{name} asks whether {row['tool_name']} may run.", "Answer approve=True, approve=False or args={...}."
            )
        return True, None if args is None else {**(row["args"] if isinstance(row["args"], dict) else {}), **args}
    if args is not None and value is not None:
        raise BadUsage(f"{name} takes one answer, not both args and value.", "Give one of args= and value=.")
    answer = args if value is None else value
    _require_fields(row, answer)
    if answer is None and approve is None:
        raise BadUsage(f"{name} asks for a value ({row['kind']}).", "Answer with value=, or refuse with approve=False.")
    return True, answer


def _require_fields(row: RowMapping, answer: Any) -> None:
    """Of user input, arguments that the tool cannot do without.

    Raises:
        BadUsage: one is missing.
    """
    needed = (row["extra"] or {}).get("required")
    if not isinstance(needed, list):
        return
    if answer is None or isinstance(answer, dict):
        given = {**(row["args"] if isinstance(row["args"], dict) else {}), **(answer or {})}
        if missing := [name for name in needed if given.get(name) is None]:
            fields = ", ".join(f"{name!r}: ..." for name in needed)
            raise BadUsage(f"{row['tool_name']} needs {', '.join(missing)}.", f"Answer with value={{{fields}}}.")


def _set(
    connection: Connection, store: Database, row: RowMapping, values: dict[str, Any], by: str | None
) -> Requirement:
    """The compare-and-set: of a requirement that is unanswered, and with nobody or with the one who answers.

    Raises:
        AlreadyResolved, AlreadyClaimed, RequirementNotFound: the row is not so any more.
    """
    q = store.tables.requirements
    mine = q.c.claimed_by.is_(None) | (q.c.claimed_by == by) if by is not None else q.c.claimed_by.is_(None)
    unchanged = (q.c.requirement_id == row["requirement_id"]) & q.c.status.in_(UNRESOLVED_STATUSES)
    changed = connection.execute(q.update().where(unchanged & mine).values(**values).returning(q)).mappings().first()
    if changed is not None:
        return mapping.requirement_from_row(changed)
    now = connection.execute(sa.select(q).where(q.c.requirement_id == row["requirement_id"])).mappings().first()
    if now is None:
        raise RequirementNotFound(f"Requirement {row['requirement_id']} was deleted.", "Its session is gone.")
    raise _too_late(mapping.requirement_from_row(now))


def _too_late(found: Requirement) -> AlreadyResolved | AlreadyClaimed:
    name = f"Requirement {found.requirement_id} ({found.tool_name or found.kind})"
    if found.status in UNRESOLVED_STATUSES:
        return AlreadyClaimed(f"{name} is with {found.claimed_by}.", "Ask them, or answer as them: by=...")
    if found.status == "expired":
        return AlreadyResolved(f"{name} expired: nobody answered in time.", "Go on with the run: it is told so.")
    who = f" by {found.resolved_by}" if found.resolved_by else ""
    when = f" at {found.resolved_at:%Y-%m-%d %H:%M:%S} UTC" if found.resolved_at else ""
    said = "approved" if found.approved else "refused"
    return AlreadyResolved(f"{name} was {said}{who}{when}.", "Nothing was changed: a pause is answered once.")


def expired_error(found: Requirement) -> AlreadyResolved | AlreadyClaimed:
    """What the one is told who answers after the time."""
    return _too_late(found)


def claim(connection: Connection, store: Database, reference: str, by: str, user_id: str | None = None) -> Requirement:
    """See `SessionStore.claim`."""
    row = find_requirement(connection, store, reference, user_id)
    _require_waiting(connection, store, row)
    return _set(connection, store, row, {"status": "claimed", "claimed_by": by}, by)


def hand_off(
    connection: Connection,
    store: Database,
    reference: str,
    *,
    to: str,
    note: str | None,
    by: str | None,
    user_id: str | None = None,
) -> Requirement:
    """See `SessionStore.handoff`."""
    named = _is_id(connection, store, reference)
    place = _place(connection, store, reference, user_id) if reference and not named else None
    if place is not None and _is_exact(place, reference):
        waiting = _of_place(connection, store, place)
        reassigned = [_reassign(connection, store, one, to, note, by) for one in waiting]
        return (
            reassigned[0]
            if reassigned
            else run_claims.hand_session_over(connection, store, place.session_id, to, note, by)
        )
    try:
        return _reassign(connection, store, find_requirement(connection, store, reference, user_id), to, note, by)
    except RequirementNotFound:
        if place is None:
            message = f"Neither a session nor a requirement is called {reference!r}."
            raise RequirementNotFound(message, "See %kern inbox and %kern sessions.") from None
        return run_claims.hand_session_over(connection, store, place.session_id, to, note, by)


def _is_id(connection: Connection, store: Database, reference: str) -> bool:
    q = store.tables.requirements
    return connection.execute(sa.select(q.c.run_id).where(q.c.requirement_id == reference)).first() is not None


def _reassign(
    connection: Connection, store: Database, row: RowMapping, to: str, note: str | None, by: str | None
) -> Requirement:
    _require_waiting(connection, store, row)
    values = {"status": "pending", "claimed_by": None, "assignee": to} | ({} if note is None else {"note": note})
    return _set(connection, store, row, values, by)
