"""Requirements: find, list, resolve and claim; `handoffs` assigns them. Each function works in one transaction.

A requirement is resolved by a compare-and-set on its row: of several concurrent answers one finds it unresolved, and
the others get an error that names the first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import damaged_rows, mapping, reads, run_claims
from kern_nb.db.references import Reference, resolve_reference
from kern_nb.db.run_claims import MAX_NAMES, current_micros, has_expired
from kern_nb.db.schema import starts_with
from kern_nb.errors import AlreadyClaimed, AlreadyResolved, AmbiguousReference, BadUsage, RequirementNotFound, RunClosed
from kern_nb.extra_keys import FIXED_ARGS, REQUIRED_FIELDS
from kern_nb.records import UNRESOLVED_STATUSES, Requirement

if TYPE_CHECKING:
    from kern_nb.db.database import Database


RequirementKey = tuple[str | None, str]
"""The run id and the id of a requirement, `Requirement.key`."""


def key_of(requirement: str | Requirement) -> str | RequirementKey:
    """What `find_requirement` looks up: a reference, or the key of a requirement that has a run."""
    if not isinstance(requirement, Requirement):
        return requirement
    return requirement.requirement_id if requirement.run_id is None else requirement.key


def find_requirement(
    connection: Connection, store: Database, reference: str | RequirementKey, user_id: str | None = None
) -> RowMapping:
    """Find a requirement by its key or a reference.

    A reference is its id, a unique prefix, its run's id and its id (``run/id``), or its session or run if that has one
    unresolved requirement. Of requirements of several runs with one id, the only unresolved one is returned.

    Raises RequirementNotFound, or AmbiguousReference if several match.
    """
    q, s = store.tables.requirements, store.tables.sessions
    query = sa.select(q)
    if user_id is not None:
        query = query.join(s, s.c.session_id == q.c.session_id).where(s.c.user_id == user_id)
    if not isinstance(reference, str):
        exact = connection.execute(query.where(q.c.run_id == reference[0], q.c.requirement_id == reference[1]))
        row = exact.mappings().first()
        if row is None:
            raise RequirementNotFound(f"Run {reference[0]} has no requirement {reference[1]!r}.", "See %kern inbox.")
        return row
    row = _find_by_id(connection, store, query, reference)
    if row is not None:
        return row
    target = find_target(connection, store, reference, user_id) if reference else None
    matches: list[RowMapping] = [] if target is None else list(unresolved(connection, store, target))
    if reference and not (target is not None and is_exact(target, reference)):
        by_prefix = query.where(starts_with(q.c.requirement_id, reference)).limit(MAX_NAMES + 1)
        keys = {(row["run_id"], row["requirement_id"]) for row in matches}
        prefixed = connection.execute(by_prefix).mappings()
        matches += [row for row in prefixed if (row["run_id"], row["requirement_id"]) not in keys]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = run_claims.join_names(matches)
        raise AmbiguousReference(f"{reference!r} matches several requirements: {names}.", "Use one of their ids.")
    if target is not None:
        hint = f"See it with %kern show {target}, and all pending requirements with %kern inbox."
        raise RequirementNotFound(f"No requirement of {str(target)!r} is pending.", hint)
    raise RequirementNotFound(f"No pending requirement matches {reference!r}.", "List them with %kern inbox.")


def _find_by_id(connection: Connection, store: Database, query: sa.Select[Any], reference: str) -> RowMapping | None:
    """The requirement with an id, or with the id of its run before it; None if there is none."""
    q = store.tables.requirements
    rows = connection.execute(query.where(q.c.requirement_id == reference)).mappings().all()
    if not rows and "/" in reference:
        splits = [(reference[:i], reference[i + 1 :]) for i, letter in enumerate(reference) if letter == "/"]
        is_key = sa.or_(*((q.c.run_id == run_id) & (q.c.requirement_id == id_) for run_id, id_ in splits))
        rows = connection.execute(query.where(is_key)).mappings().all()
    if len(rows) > 1:
        rows = [row for row in rows if row["status"] in UNRESOLVED_STATUSES] or rows
    if len(rows) > 1:
        names = ", ".join(f"{row['run_id']}/{row['requirement_id']}" for row in rows[:MAX_NAMES])
        message = f"{reference!r} is the id of requirements of several runs: {names}."
        raise AmbiguousReference(message, "Use one of these names, or pass the Requirement.")
    return rows[0] if rows else None


def find_by_call(
    connection: Connection, store: Database, run_id: str, tool_call_id: str, user_id: str | None
) -> Requirement:
    """See `SessionStore.find_requirement`."""
    q, s = store.tables.requirements, store.tables.sessions
    query = sa.select(q).where(q.c.tool_call_id == tool_call_id).order_by(q.c.created_at, q.c.requirement_id)
    if user_id is not None:
        query = query.join(s, s.c.session_id == q.c.session_id).where(s.c.user_id == user_id)
    rows = connection.execute(query.where(q.c.run_id == run_id)).mappings().all()
    if not rows:
        members = reads.run_tree_ids(connection, store.tables, run_id)[1:]
        rows = connection.execute(query.where(q.c.run_id.in_(members))).mappings().all() if members else []
    if not rows:
        message = f"No requirement of run {run_id} has the tool call {tool_call_id!r}."
        raise RequirementNotFound(message, "List them with store.requirements(run_id=..., status=None).")
    return mapping.requirement_from_row(next((r for r in rows if r["status"] in UNRESOLVED_STATUSES), rows[-1]))


def find_target(connection: Connection, store: Database, reference: str, user_id: str | None) -> Reference | None:
    """The session or run of a reference; None if it does not exist."""
    try:
        return resolve_reference(connection, store.tables, reference, user_id)
    except KeyError:
        return None


def is_exact(target: Reference, reference: str) -> bool:
    """Whether a reference has the full session id: that takes precedence over a prefix of a requirement's id."""
    return reference == target.session_id or reference.startswith(f"{target.session_id}/")


def unresolved(connection: Connection, store: Database, target: Reference) -> Sequence[RowMapping]:
    """The unresolved requirements of a session, or of a run and its members' runs."""
    q, r = store.tables.requirements, store.tables.runs
    query = sa.select(q).where(q.c.session_id == target.session_id, q.c.status.in_(UNRESOLVED_STATUSES))
    if target.run_index is not None:
        run_id = sa.select(r.c.run_id).where(r.c.session_id == target.session_id, r.c.run_index == target.run_index)
        run_ids = reads.run_tree_ids(connection, store.tables, connection.execute(run_id).scalar())
        query = query.where(q.c.run_id.in_(run_ids))
    return connection.execute(query.order_by(q.c.created_at)).mappings().all()


def list_requirements(
    connection: Connection, store: Database, filters: Mapping[str, str | None], status: str | Sequence[str] | None
) -> list[Requirement]:
    """See `SessionStore.requirements`; ``filters`` are its arguments but the status."""
    q, r, s = store.tables.requirements, store.tables.runs, store.tables.sessions
    session_id, run_id = filters["session_id"], filters["run_id"]
    query = sa.select(q)
    if filters["run_status"] is not None:
        query = query.join(r, r.c.run_id == q.c.run_id).where(r.c.status == filters["run_status"])
    if filters["user_id"] is not None:
        query = query.join(s, s.c.session_id == q.c.session_id).where(s.c.user_id == filters["user_id"])
    if run_id is not None:
        query = query.where(q.c.run_id.in_(reads.run_tree_ids(connection, store.tables, run_id)))
    for name in ("session_id", "assignee"):
        if filters[name] is not None:
            query = query.where(q.c[name] == filters[name])
    statuses = [status] if isinstance(status, str) else status
    if statuses is not None:
        # The stored status of an expired requirement may still be an unresolved one.
        query = query.where(q.c.status.in_({*statuses, *(UNRESOLVED_STATUSES if "expired" in statuses else ())}))
    query = query.order_by(q.c.created_at, q.c.requirement_id).with_only_columns(
        *map(damaged_rows.raw, q.columns), maintain_column_froms=True
    )
    rows = []
    for raw_row in connection.execute(query).mappings():
        row, damaged = damaged_rows.decode_row(store.tables, "requirements", raw_row)
        if damaged:
            damaged_rows.report_damage(store, "requirements", raw_row, only=session_id or run_id)
            continue
        rows.append(row | {"status": "expired"} if has_expired(row) else row)
    return [mapping.requirement_from_row(row) for row in rows if statuses is None or row["status"] in statuses]


def resolve(
    connection: Connection,
    store: Database,
    reference: str | RequirementKey,
    *,
    note: str | None,
    by: str | None,
    user_id: str | None,
    **answer: Any,
) -> Requirement:
    """See `SessionStore.resolve`. An expired requirement is returned, not raised, so that its expiry is committed."""
    row = find_requirement(connection, store, reference, user_id)
    if has_expired(row):
        return run_claims.expire(connection, store, row)
    require_unresolved(connection, store, row)
    values: dict[str, Any] = {"status": "resolved", "resolved_by": by} | ({} if note is None else {"note": note})
    values["approved"], values["answer"] = _validate_answer(row, **answer)
    values["resolved_at"] = current_micros()
    return compare_and_set(connection, store, row, values, by)


def require_unresolved(connection: Connection, store: Database, row: RowMapping) -> None:
    """Check that a requirement is neither resolved nor expired, and that its run is paused."""
    if has_expired(row):
        raise resolved_error(mapping.requirement_from_row({**row, "status": "expired"}))
    if row["status"] not in UNRESOLVED_STATUSES:
        raise resolved_error(mapping.requirement_from_row(row))
    q, r = store.tables.requirements, store.tables.runs
    status = connection.execute(sa.select(r.c.status).where(r.c.run_id == row["run_id"])).scalar()
    if status != "PAUSED":
        query = sa.select(q).where(run_claims.has_key(store.tables, row))
        resolved = connection.execute(query.where(q.c.status.not_in(UNRESOLVED_STATUSES))).mappings().first()
        if resolved is not None:  # after the row was read; and the run was resumed
            raise resolved_error(mapping.requirement_from_row(resolved))
        raise RunClosed(f"Run {row['run_id']} is {status}, not PAUSED.", "Nothing was changed.")


def _validate_answer(
    row: RowMapping, *, approve: bool | None, args: dict[str, Any] | None, value: Any
) -> tuple[bool, Any]:
    """Whether the call is approved, and the answer, checked against the requirement's kind."""
    name = row["requirement_id"]
    with contextlib.suppress(ValueError):  # an array of several values
        approve = getattr(approve, "item", lambda: approve)()  # numpy's bool, from a cell of a DataFrame
    if not isinstance(approve, bool | None):
        raise BadUsage(f"approve must be a bool, got {approve!r}.", f"Resolve {name} with approve=True or False.")
    if not isinstance(args, dict | None):
        raise BadUsage(f"args must be a dict, got {args!r}.", "Give the arguments by name: args={'path': 'x'}.")
    if approve is False:
        if args is not None or value is not None:
            raise BadUsage(f"A rejection of {name} takes no args and no value.", "Give the reason as note=.")
        return False, None
    if args is not None and (reason := (row["extra"] or {}).get(FIXED_ARGS)) is not None:
        raise BadUsage(f"The arguments of {row['tool_name']} cannot be changed: {reason}.", "Reject it with a note=.")
    if row["kind"] == "confirmation":
        if value is not None or (approve is None and args is None):
            hint = "Resolve it with approve=True, approve=False or args={...}."
            raise BadUsage(f"{name} asks to confirm a call of {row['tool_name']}.", hint)
        return True, None if args is None else {**_call_args(row), **args}
    if args is not None and value is not None:
        raise BadUsage(f"{name} takes args or value, not both.", "Give one of args= and value=.")
    answer = args if value is None else value
    _require_fields(row, answer)
    if answer is None and approve is None:
        hint = "Resolve it with value=, or reject it with approve=False."
        raise BadUsage(f"{name} asks for a value ({row['kind']}).", hint)
    return True, answer


def _call_args(row: RowMapping) -> dict[str, Any]:
    return row["args"] if isinstance(row["args"], dict) else {}


def _require_fields(row: RowMapping, answer: Any) -> None:
    """Check that user input has the arguments without which the tool cannot run."""
    required = (row["extra"] or {}).get(REQUIRED_FIELDS)
    if not isinstance(required, list) or not isinstance(answer, dict | None):
        return
    args = {**_call_args(row), **(answer or {})}
    if without_value := [name for name in required if args.get(name) is None]:
        fields = ", ".join(f"{name!r}: ..." for name in required)
        raise BadUsage(f"{row['tool_name']} needs {', '.join(without_value)}.", f"Resolve with value={{{fields}}}.")


def compare_and_set(
    connection: Connection, store: Database, row: RowMapping, values: dict[str, Any], by: str | None
) -> Requirement:
    """Update a requirement, unless by now it is resolved, claimed by anybody but ``by``, or deleted."""
    q = store.tables.requirements
    is_claimable = q.c.claimed_by.is_(None) if by is None else q.c.claimed_by.is_(None) | (q.c.claimed_by == by)
    is_this = run_claims.has_key(store.tables, row)
    update = q.update().where(is_this, q.c.status.in_(UNRESOLVED_STATUSES), is_claimable).values(**values)
    updated = connection.execute(update.returning(q)).mappings().first()
    if updated is not None:
        return mapping.requirement_from_row(updated)
    current = connection.execute(sa.select(q).where(is_this)).mappings().first()
    if current is None:
        raise RequirementNotFound(f"Requirement {row['requirement_id']} was deleted.", "Its session was deleted.")
    raise resolved_error(mapping.requirement_from_row(current))


def resolved_error(requirement: Requirement) -> AlreadyResolved | AlreadyClaimed:
    """The error of an answer to a requirement that is claimed by another, expired, or resolved."""
    name = f"Requirement {requirement.requirement_id} ({requirement.tool_name or requirement.kind})"
    if requirement.status in UNRESOLVED_STATUSES:
        hint = "Ask them, or answer in their name with by=."
        return AlreadyClaimed(f"{name} is claimed by {requirement.claimed_by}.", hint)
    if requirement.status == "expired":
        return AlreadyResolved(f"{name} expired before it was resolved.", "Resume the run: the model sees the expiry.")
    actor = f" by {requirement.resolved_by}" if requirement.resolved_by else ""
    time = f" at {requirement.resolved_at:%Y-%m-%d %H:%M:%S} UTC" if requirement.resolved_at else ""
    outcome = "approved" if requirement.approved else "rejected"
    hint = "Nothing was changed: a requirement is resolved once."
    return AlreadyResolved(f"{name} was {outcome}{actor}{time}.", hint)


def claim(
    connection: Connection, store: Database, reference: str | RequirementKey, by: str, user_id: str | None = None
) -> Requirement:
    """See `SessionStore.claim`."""
    row = find_requirement(connection, store, reference, user_id)
    require_unresolved(connection, store, row)
    return compare_and_set(connection, store, row, {"status": "claimed", "claimed_by": by}, by)
