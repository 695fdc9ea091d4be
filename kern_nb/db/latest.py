"""The newest runs and messages of a session, read from its end: the cost does not depend on the session's length.

A branch is read segment by segment, its own rows first, until there are enough.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb.db import mapping, reads, validation
from kern_nb.db.lineage import UNSEEN_RESULT, Lineage, Segment, load_lineage
from kern_nb.db.schema import Tables
from kern_nb.records import RESULT_ROLES, Message, Run, RunStatus, ToolCall

_WIDER = 4
"""If the runs of a step have too few messages, the next step has so many times as many runs."""


def last_runs(
    connection: Connection, tables: Tables, session_id: str, n: int, status: RunStatus | None, user_id: str | None
) -> list[Run]:
    """See `SessionStore.last_runs`."""
    n = validation.require_count("n", n)
    lineage = load_lineage(connection, tables, reads.require_session(connection, tables, session_id, user_id))
    r = tables.runs
    rows: list[RowMapping] = []
    segments = []
    for segment in reversed(lineage):
        if len(rows) >= n:
            break
        is_selected = segment.runs(r) if status is None else segment.runs(r) & (r.c.status == status)
        # By their indexes first: a column store would otherwise read all columns of all runs.
        newest = sa.select(r.c.run_index).where(is_selected).order_by(r.c.run_index.desc()).limit(n - len(rows))
        indexes = connection.execute(newest).scalars().all()
        if indexes:
            query = sa.select(r).where(is_selected, r.c.run_index.between(indexes[-1], indexes[0]))
            rows += connection.execute(query.order_by(r.c.run_index.desc())).mappings()
            segments.append(segment)
    rows.reverse()
    runs = reads.load_runs(connection, tables, Lineage(reversed(segments)), rows)
    reads.add_requirements(connection, tables, runs, only_listed=True)
    for run in runs:
        if run.status == "PAUSED":
            reads.add_member_requirements(connection, tables, run)
    return runs


def last_messages(
    connection: Connection, tables: Tables, session_id: str, n: int, user_id: str | None
) -> list[Message]:
    """See `SessionStore.last_messages`."""
    n = validation.require_count("n", n)
    lineage = load_lineage(connection, tables, reads.require_session(connection, tables, session_id, user_id))
    messages: list[Message] = []
    floors = [-1, *(segment.until.run_index for segment in lineage if segment.until is not None)]
    for segment, floor in zip(reversed(lineage), reversed(floors), strict=False):
        if len(messages) >= n:
            break
        rows = list(newest_message_rows(connection, tables, segment, floor, n - len(messages)))
        messages = load_messages(connection, tables, segment, rows[::-1]) + messages
    return messages


def newest_message_rows(
    connection: Connection, tables: Tables, segment: Segment, floor: int, n: int
) -> Iterator[RowMapping]:
    """The newest ``n`` messages of a segment, newest first; its runs have indexes after ``floor``."""
    m, r = tables.messages, tables.runs
    high = segment.until.run_index if segment.until is not None else None
    if high is None:
        last = sa.select(sa.func.max(r.c.run_index)).where(r.c.session_id == segment.session_id)
        high = connection.execute(last).scalar()
    width = n
    while high is not None and high > floor and n > 0:
        low = max(floor, high - width)
        query = sa.select(m).where(segment.inside(m), m.c.run_index > low, m.c.run_index <= high)
        query = query.order_by(m.c.run_index.desc(), m.c.message_index.desc()).limit(n)
        rows = connection.execute(query).mappings().all()
        yield from rows
        n -= len(rows)
        high, width = low, _WIDER * width


def load_messages(connection: Connection, tables: Tables, segment: Segment, rows: list[RowMapping]) -> list[Message]:
    """Messages from their rows, which are a segment's last ones in order, with their tool calls."""
    if not rows:
        return []
    t, first, last = tables.tool_calls, rows[0], rows[-1]
    is_after = (t.c.run_index > first["run_index"]) | (t.c.message_index >= first["message_index"])
    query = sa.select(t).where(segment.inside(t), t.c.run_index.between(first["run_index"], last["run_index"]))
    calls: dict[tuple[str, int], list[ToolCall]] = defaultdict(list)
    answered = {(row["run_id"], row["tool_call_id"]) for row in rows if row["role"] in RESULT_ROLES}
    for row in connection.execute(query.where(is_after).order_by(t.c.run_index, t.c.call_index)).mappings():
        # The results of calls in a run that the branch point cuts: those that are inherited, too.
        is_unseen = _is_cut(segment, row) and (row["run_id"], row["tool_call_id"]) not in answered
        call = mapping.tool_call_from_row({**row, **UNSEEN_RESULT} if is_unseen else row)
        calls[row["run_id"], row["message_index"]].append(call)
    messages = [mapping.message_from_row(row) for row in rows]
    for message, row in zip(messages, rows, strict=True):
        message.tool_calls = calls[row["run_id"], row["message_index"]]
    return messages


def _is_cut(segment: Segment, row: RowMapping) -> bool:
    until = segment.until
    return until is not None and until.message_index is not None and row["run_index"] == until.run_index
