"""The tables of a store.

`Tables` builds the SQLAlchemy tables for one ``session_table`` name; any name isolates a workload. Times are BIGINT:
unix seconds on sessions, as documented, and unix microseconds elsewhere. JSON is TEXT, written by `codec`: the same
bytes on every engine. A text column beside a ``*_json`` one holds what people read; the JSON is set if the value is not
text.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, get_args

import sqlalchemy as sa

from kern_nb.db import codec
from kern_nb.db.column_types import Boolean, Integer, Json, Real, Text, ValidatedType
from kern_nb.records import YEARS, Requirement, RunStatus, SessionType, ToolStatus

SESSION_TABLE = "agno_sessions"
"""The documented default. Any other name is consent to create tables beside those of other programs."""

ALLOWED_VALUES = {
    ("sessions", "session_type"): get_args(SessionType),
    ("runs", "run_type"): get_args(SessionType),
    ("runs", "status"): get_args(RunStatus),
    ("tool_calls", "status"): get_args(ToolStatus),
    ("requirements", "kind"): get_args(Requirement.model_fields["kind"].annotation),
    ("requirements", "status"): get_args(Requirement.model_fields["status"].annotation),
}
"""The allowed values of a column, by table and column."""

MIN_VALUES = {"run_index": 0, "message_index": 0, "call_index": 0, "revision": 0}
MIN_VALUES |= {"last_deleted_run_index": 0}
MIN_VALUES |= {"fork_run_index": -1, "fork_message_index": -1}
"""The smallest allowed value of a column."""


def micros_per_unit(table: str) -> int:
    """Return the microseconds per unit of a table's times: sessions store seconds."""
    return 1_000_000 if table == "sessions" else 1


def find_problem(table: str, column: sa.Column[Any], value: Any) -> str | None:
    """Why a decoded value is invalid for its column of a table, an attribute of `Tables`; None if it is valid."""
    if value is None:
        return None if column.nullable else "expected a value, got NULL"
    name = column.name
    allowed = ALLOWED_VALUES.get((table, name))
    if allowed is not None and value not in allowed:
        return f"expected one of {', '.join(allowed)}, got {codec.short_repr(value)}"
    if name in MIN_VALUES and value < MIN_VALUES[name]:
        return f"expected {MIN_VALUES[name]} or more, got {value}"
    if name.endswith("_at") and not YEARS[0] <= value * micros_per_unit(table) // 1_000_000 <= YEARS[1]:
        return f"expected a time in the years 1 to 9999, got {value}"
    if isinstance(column.type, Real) and not math.isfinite(value):
        return f"expected a finite number, got {value}"
    return None


USAGE_COLUMNS = (
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "total_tokens",
    "cost",
)  # fmt: skip

MAX_TOKENS = 10**15
"""A larger count of tokens is an error of its source, and would make sums wider than any column."""


_OWNERS = ("agent_id", "team_id", "workflow_id", "user_id")


def _key(name: str, kind: type[sa.types.TypeEngine[Any]], *, indexed: bool = True) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=indexed, autoincrement=False, nullable=False)


def _columns(kind: type[sa.types.TypeEngine[Any]], *names: str, required: bool = False) -> Iterator[sa.Column[Any]]:
    return (sa.Column(name, kind, nullable=not required) for name in names)


def _usage() -> Iterator[sa.Column[Any]]:
    return (sa.Column(name, Real if name == "cost" else Integer) for name in USAGE_COLUMNS)


class Tables:
    """The tables of one workload.

    Args:
        session_table: The name of the sessions' table; the others are named after it.
        db_schema: The database schema, if the engine has schemas.
        indexed: Whether to create indexes. A column store scans, and would pay for each index at every append; its
            single writer keeps the numbers of messages and calls unique.
    """

    def __init__(self, session_table: str, db_schema: str | None = None, *, indexed: bool = True) -> None:
        self.name = session_table
        self.metadata = sa.MetaData(schema=db_schema)

        def table(suffix: str, *columns: sa.schema.SchemaItem) -> sa.Table:
            return sa.Table(session_table + suffix, self.metadata, *columns)

        self.sessions = table(
            "",
            _key("session_id", Text),
            sa.Column("session_type", Text, nullable=False),
            *_columns(Text, *_OWNERS),
            *_columns(Json, "session_data", "agent_data", "team_data", "workflow_data", "metadata", "summary"),
            *_columns(Integer, "created_at", "updated_at"),
            sa.Column("parent_session_id", Text),
            *_columns(Integer, "fork_run_index", "fork_message_index"),
            sa.Column("duration_s", Real),
            # The first record of an imported session, by which copies of it are recognized.
            sa.Column("source_key", Text),
            # The parent that the source of an imported fork or nested agent states, until it is stored, too.
            sa.Column("missing_parent", Text),
            # How often its own fields were changed, for savers that compare; NULL is 0.
            sa.Column("revision", Integer),
            # The highest index that a deleted run of its own had: no later run gets it, or a lower one.
            sa.Column("last_deleted_run_index", Integer),
        )
        self.runs = table(
            "_runs",
            _key("session_id", Text),
            _key("run_index", Integer),
            sa.Column("run_id", Text, nullable=False, unique=True),
            sa.Column("parent_run_id", Text),
            sa.Column("run_type", Text, nullable=False),
            *_columns(Text, *_OWNERS),
            sa.Column("status", Text, nullable=False),
            *_columns(Text, "model", "model_provider", "input"),
            sa.Column("input_json", Json(any_value=True)),
            sa.Column("output", Text),
            sa.Column("output_json", Json(any_value=True)),
            *_usage(),
            *_columns(Real, "duration_s", "time_to_first_token_s"),
            sa.Column("error", Text),
            # Of an open run: the state it started from. Of a finished one: the state it had at its end.
            sa.Column("session_state", Json),
            *_columns(Integer, "created_at", "finished_at"),
            # The process that writes an open run, so that `check` can distinguish a live run from an interrupted one.
            sa.Column("process", Text),
            # When that process last said that it does.
            sa.Column("heartbeat_at", Integer),
            # The run that this one copies, in a detached branch: its usage is not counted in this session.
            sa.Column("copied_from", Text),
            # What ingest compares to see whether a record has changed.
            sa.Column("source_hash", Text),
            sa.Column("cost_source", Text),
            # ``internal`` is kern_nb's own notes (`extra_keys`); ``extra`` belongs to the source.
            *_columns(Json, "extra", "internal"),
        )
        self.messages = table(
            "_messages",
            _key("run_id", Text, indexed=indexed),
            _key("message_index", Integer, indexed=indexed),
            sa.Column("session_id", Text, nullable=False),
            sa.Column("run_index", Integer, nullable=False),
            sa.Column("message_id", Text),
            sa.Column("role", Text, nullable=False),
            sa.Column("content", Text),
            sa.Column("content_json", Json(any_value=True)),
            *_columns(Text, "tool_call_id", "tool_name"),
            sa.Column("is_error", Boolean),
            sa.Column("model", Text),
            *_usage(),
            sa.Column("created_at", Integer),
            sa.Column("extra", Json),
            # A copy of a message of an earlier run, which is counted there; the start of an interrupted answer.
            *_columns(Boolean, "from_history", "partial"),
            sa.Column("internal", Json),
            sa.Column("cost_source", Text),
        )
        self.tool_calls = table(
            "_tool_calls",
            _key("run_id", Text, indexed=indexed),
            _key("tool_call_id", Text, indexed=indexed),
            sa.Column("session_id", Text, nullable=False),
            sa.Column("run_index", Integer, nullable=False),
            sa.Column("message_index", Integer),
            # The position among the calls of the run: ids have no useful order.
            sa.Column("call_index", Integer, nullable=False),
            sa.Column("tool_name", Text),
            sa.Column("caller", Text, nullable=False),
            sa.Column("args", Json(any_value=True)),
            sa.Column("result", Text),
            sa.Column("result_json", Json(any_value=True)),
            sa.Column("status", Text, nullable=False),
            sa.Column("duration_s", Real),
            sa.Column("created_at", Integer),
            *_columns(Json, "extra", "internal"),
        )
        self.requirements = table(
            "_requirements",
            _key("requirement_id", Text),
            sa.Column("session_id", Text, nullable=False),
            _key("run_id", Text),
            *_columns(Text, "kind", "status", required=True),
            *_columns(Text, "tool_call_id", "tool_name"),
            sa.Column("args", Json(any_value=True)),
            *_columns(Text, "prompt", "assignee"),
            sa.Column("approved", Boolean),
            sa.Column("answer", Json(any_value=True)),
            sa.Column("note", Text),
            *_columns(Integer, "created_at", "resolved_at"),
            *_columns(Text, "resolved_by", "claimed_by"),
            sa.Column("expires_at", Integer),
            sa.Column("extra", Json),
        )
        self.scores = table(
            "_scores",
            _key("score_id", Text),
            sa.Column("session_id", Text, nullable=False),
            sa.Column("run_id", Text),
            sa.Column("name", Text, nullable=False),
            sa.Column("value", Real),
            sa.Column("source", Text),
            sa.Column("created_at", Integer),
        )
        self.blobs = table(
            "_blobs",
            _key("sha256", Text),
            sa.Column("media_type", Text),
            sa.Column("size", Integer, nullable=False),
            sa.Column("content", sa.LargeBinary, nullable=False),
        )
        # Shared by all workloads of a database: one row per session_table, with the version of its tables.
        version = sa.Column("version", Integer, nullable=False)
        self.schema = sa.Table("kern_schema", self.metadata, _key("session_table", Text), version)
        self.session_tables = (self.runs, self.messages, self.tool_calls, self.requirements, self.scores)
        for owner in self.metadata.sorted_tables:
            for column in owner.columns:
                if isinstance(column.type, ValidatedType):
                    column.type.column = column
        if indexed:
            self._index()

    def _index(self) -> None:
        s, r, m, t = self.sessions.c, self.runs.c, self.messages.c, self.tool_calls.c
        sa.Index(f"{self.name}_by_time", sort_time(s.created_at), s.session_id)
        sa.Index(f"{self.name}_by_parent", s.parent_session_id)
        for column in (s.source_key, s.missing_parent):  # only imported sessions have these
            imported: dict[str, Any] = dict.fromkeys(("sqlite_where", "postgresql_where"), column.is_not(None))
            sa.Index(f"{self.name}_by_{column.name}", column, **imported)
        where: dict[str, Any] = dict.fromkeys(("sqlite_where", "postgresql_where"), r.parent_run_id.is_not(None))
        sa.Index(f"{self.name}_runs_by_parent", r.session_id, r.parent_run_id, **where)  # only members' runs have one
        sa.Index(f"{self.name}_messages_by_run", m.session_id, m.run_index, m.message_index)
        sa.Index(f"{self.name}_tool_calls_by_run", t.session_id, t.run_index)
        sa.Index(f"{self.name}_requirements_by_run", self.requirements.c.run_id)
        sa.Index(f"{self.name}_requirements_by_session", self.requirements.c.session_id)
        sa.Index(f"{self.name}_scores_by_session", self.scores.c.session_id)


@lru_cache(maxsize=32)
def shared_tables(session_table: str, db_schema: str | None = None, *, indexed: bool = True) -> Tables:
    """Return the `Tables` of these arguments, the same for all stores, so that `statement_cache` serves them all."""
    return Tables(session_table, db_schema, indexed=indexed)


UNKNOWN_TIME = -(2**62)


def sort_time(created_at: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """Return the sort key of sessions, newest first if descending: those of unknown time come last."""
    return sa.func.coalesce(created_at, sa.literal_column(str(UNKNOWN_TIME)))


def starts_with(column: sa.Column[str], prefix: str) -> sa.ColumnElement[bool]:
    """Compare a prefix case-sensitively: LIKE would fold case on some engines."""
    stored = codec.encode_text(prefix)
    return sa.func.substr(sa.type_coerce(column, sa.Text()), 1, len(stored)) == sa.literal(stored, sa.Text())
