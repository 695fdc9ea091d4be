"""The tables of a store, the schema's version, and the way from an older one.

`Tables` builds the SQLAlchemy tables for one ``session_table`` name; any name isolates a workload. Times are BIGINT:
unix seconds on sessions, as documented, and unix microseconds elsewhere. JSON is TEXT, written by `codec`: the same
bytes on every engine. A text column beside a ``*_json`` one is what people read; the JSON is set where the value is
no text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any, SupportsFloat, SupportsIndex, get_args

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from kern_nb import extra_keys
from kern_nb.db import catalog, codec, foreign_layouts
from kern_nb.errors import BadUsage, ForeignLayout, SchemaTooNew, UnstorableValue
from kern_nb.records import YEARS, Requirement, RunStatus, SessionType, ToolStatus

SCHEMA_VERSION = 4

SESSION_TABLE = "agno_sessions"
"""The documented default. A caller who names another one agrees to tables of ours beside other programs'."""


StoredRow = Mapping[str, Any] | RowMapping


class UnreadableCell(Exception):
    """A stored value that its column cannot hold, met by a reader; `Connected.connect` turns it into `DamagedRow`.

    Attributes:
        column: The column, or its table as an attribute of `Tables` and its name.
        value: The value as the driver gives it.
        reason: What is wrong with it.
        row: The row, where the reader has it at hand.
    """

    def __init__(
        self,
        column: sa.Column[Any] | tuple[str, str] | None,
        value: object,
        reason: str,
        row: StoredRow | None = None,
    ) -> None:
        super().__init__(reason)
        self.column, self.value, self.reason, self.row = column, value, reason, row


class Decoded(sa.types.TypeDecorator[Any]):
    """A column type that reads what it wrote and nothing else.

    SQLite keeps a value of any type in any column, and JSON is text that anybody may edit: what does not belong is
    never taken for a value.
    """

    cache_ok = True
    column: sa.Column[Any] | None = None
    """Where it stands; `Tables` sets it."""

    def decode(self, value: Any) -> Any:
        """The value of a cell, from what the driver gives for one that is not NULL.

        Raises:
            ValueError: the cell is damaged.
        """
        raise NotImplementedError

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:
        """Decode; NULL is None."""
        if value is None:
            return None
        try:
            return self.decode(value)
        except ValueError as error:
            raise UnreadableCell(self.column, value, str(error)) from error


class NotText(bytes):
    """What SQLite has as text, and what is no UTF-8."""


def _stored_kind(value: object) -> str:
    """What a cell holds, in words."""
    return _KINDS.get(type(value), type(value).__name__)


_KINDS = {NotText: "bytes that are no UTF-8", bytes: "bytes", str: "text", float: "a fraction", int: "a number"}


class Text(Decoded):
    """Any string, NUL and lone surrogates included. Sorts by code point on every engine."""

    impl = sa.Text
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[str]:
        """PostgreSQL would sort by the database's language."""
        return dialect.type_descriptor(sa.Text(collation="C" if dialect.name == "postgresql" else None))

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """Escape what an engine cannot store."""
        if value is None:
            return None
        if not isinstance(value, str):
            raise not_text(value)
        # Drivers know str itself: an enum's member is a str to Python, and something else to some of them.
        return codec.encode_text(value if type(value) is str else str.__str__(value))

    def decode(self, value: Any) -> str:
        """Undo the escapes."""
        if type(value) is not str:
            raise ValueError(f"{_stored_kind(value)} where text belongs")
        return codec.decode_text(value)


def not_text(value: object) -> BadUsage:
    """The refusal of an id, or other text, that is none."""
    return BadUsage(f"{codec.shown(value)} is no text.", "Ids and names are text: str(value) makes it one.")


class Json(Decoded):
    """Any value that `codec` knows. None is NULL.

    Args:
        any_value: Whether it may be of any type; otherwise it is an object.
    """

    impl = sa.Text
    cache_ok = True

    def __init__(self, *, any_value: bool = False) -> None:
        super().__init__()
        self.any_value = any_value

    def process_bind_param(self, value: object, dialect: sa.Dialect) -> str | None:
        """Encode."""
        return None if value is None else codec.dumps(value)

    def decode(self, value: Any) -> Any:
        """The value of the JSON text."""
        if type(value) is not str:
            raise ValueError(f"{_stored_kind(value)} where JSON belongs")
        found = codec.loads(value)
        if not (self.any_value or isinstance(found, dict)):
            raise ValueError(f"JSON of {type(found).__name__} where an object belongs")
        return found


class _Typed(Decoded):
    """A number or a truth value: engines other than SQLite hold to the type of a column by themselves."""

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Any:
        """Look at values of SQLite only."""
        if dialect.name == "sqlite":
            return lambda value: self.process_result_value(value, dialect)
        return self.load_dialect_impl(dialect).result_processor(dialect, coltype)


class Whole(_Typed):
    """An integer of 64 bits."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> int | None:
        """Refuse what the column cannot hold: drivers have errors of their own for it."""
        return None if value is None else whole(value)

    def decode(self, value: Any) -> int:
        """The integer."""
        if type(value) is not int:
            raise ValueError(f"{_stored_kind(value)} where a whole number belongs")
        return value


class Real(_Typed):
    """A finite number."""

    impl = sa.Double
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> float | None:
        """Refuse what is no number, and what no sum survives."""
        return None if value is None else real(value)

    def decode(self, value: Any) -> float:
        """The number."""
        if type(value) not in (float, int):
            raise ValueError(f"{_stored_kind(value)} where a number belongs")
        return float(value)


class Flag(_Typed):
    """True or False."""

    impl = sa.Boolean
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> bool | None:
        """Refuse what is neither."""
        if value is None or value in (True, False):
            return None if value is None else bool(value)
        raise UnstorableValue(
            f"True or False is needed, not {codec.shown(value)}.", "Leave it out where it is unknown."
        )

    def decode(self, value: Any) -> bool:
        """The truth value."""
        if value not in (0, 1) or type(value) not in (bool, int):
            raise ValueError(f"{_stored_kind(value)} where true or false belongs")
        return bool(value)


_WIDEST = 2**63


def whole(value: Any) -> int:
    """An integer of any kind, numpy's among them, as a column takes it.

    Raises:
        UnstorableValue: it is no integer, or wider than 64 bits.
    """
    if type(value) is not int:
        if isinstance(value, bool) or not isinstance(value, SupportsIndex):
            raise UnstorableValue(f"A whole number is needed, not {codec.shown(value)}.", "Round it, or leave it out.")
        value = value.__index__()
    if not -_WIDEST <= value < _WIDEST:
        message = f"The number {codec.shown(value)} is too large for a column."
        raise UnstorableValue(message, "Keep it in extra, where numbers may be of any size.")
    return int(value)


def real(value: Any) -> float:
    """A number of any kind as a column takes it.

    Raises:
        UnstorableValue: it is no number, or not finite.
    """
    if type(value) is not float:
        if isinstance(value, bool) or not isinstance(value, (SupportsFloat, SupportsIndex)):
            raise UnstorableValue(f"A number is needed, not {codec.shown(value)}.", "Leave it out where it is unknown.")
        try:
            value = float(value)
        except (OverflowError, TypeError, ValueError) as error:
            message = f"The number {codec.shown(value)} is too large for a column."
            raise UnstorableValue(message, "Keep it in extra, where numbers may be of any size.") from error
    if not math.isfinite(value):
        raise UnstorableValue(f"A finite number is needed, not {value}.", "Leave it out where it is unknown.")
    return float(value)


WORDS = {
    ("sessions", "session_type"): get_args(SessionType),
    ("runs", "run_type"): get_args(SessionType),
    ("runs", "status"): get_args(RunStatus),
    ("tool_calls", "status"): get_args(ToolStatus),
    ("requirements", "kind"): get_args(Requirement.model_fields["kind"].annotation),
    ("requirements", "status"): get_args(Requirement.model_fields["status"].annotation),
}
"""What a column may hold, by table and column, where that is one of a few words."""

LEAST = {"run_index": 0, "message_index": 0, "call_index": 0, "fork_run_index": -1, "fork_message_index": -1}
"""The least value of a column that counts."""


def micros_per_unit(table: str) -> int:
    """Microseconds in the unit of a table's times: sessions have seconds."""
    return 1_000_000 if table == "sessions" else 1


def problem(table: str, column: sa.Column[Any], value: Any) -> str | None:
    """What contradicts a column's meaning in a value that was decoded; None where nothing does.

    Args:
        table: The attribute of `Tables`.
        column: The column.
        value: The value; None is NULL.
    """
    if value is None:
        return None if column.nullable else "NULL where a value belongs"
    name = column.name
    words = WORDS.get((table, name))
    if words is not None and value not in words:
        return f"{codec.shown(value)} where one of {', '.join(words)} belongs"
    if name in LEAST and value < LEAST[name]:
        return f"{value} where a number of {LEAST[name]} or more belongs"
    if name.endswith("_at") and not YEARS[0] <= value * micros_per_unit(table) // 1_000_000 <= YEARS[1]:
        return f"{value} where a time of the years 1 to 9999 belongs"
    if isinstance(column.type, Real) and not math.isfinite(value):
        return f"{value} where a finite number belongs"
    return None


USAGE = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "total_tokens",
    "cost",
)


MOST_TOKENS = 10**15
"""A count of tokens beyond this is none, and would make sums wider than any column."""


def _usage() -> list[sa.Column[object]]:
    return [sa.Column(name, Real if name == "cost" else Whole) for name in USAGE]


def _key(name: str, kind: type[sa.types.TypeEngine[Any]], *, indexed: bool = True) -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=indexed, autoincrement=False, nullable=False)


class Tables:
    """The tables of one workload.

    Args:
        session_table: The name of the sessions' table; the others are named after it.
        db_schema: The database schema they live in, where the engine has schemas.
        indexed: Whether to look rows up by index. A column store scans, and would pay for each index at every append;
            that messages and calls are numbered once is then seen to by the one writer it admits.
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
            *(sa.Column(name, Text) for name in ("agent_id", "team_id", "workflow_id", "user_id")),
            *(sa.Column(name, Json) for name in ("session_data", "agent_data", "team_data", "workflow_data")),
            sa.Column("metadata", Json),
            sa.Column("summary", Json),
            sa.Column("created_at", Whole),
            sa.Column("updated_at", Whole),
            sa.Column("parent_session_id", Text),
            sa.Column("fork_run_index", Whole),
            sa.Column("fork_message_index", Whole),
            sa.Column("duration_s", Real),
        )
        self.runs = table(
            "_runs",
            _key("session_id", Text),
            _key("run_index", Whole),
            sa.Column("run_id", Text, nullable=False, unique=True),
            sa.Column("parent_run_id", Text),
            sa.Column("run_type", Text, nullable=False),
            *(sa.Column(name, Text) for name in ("agent_id", "team_id", "workflow_id", "user_id")),
            sa.Column("status", Text, nullable=False),
            sa.Column("model", Text),
            sa.Column("model_provider", Text),
            sa.Column("input", Text),
            sa.Column("input_json", Json(any_value=True)),
            sa.Column("output", Text),
            sa.Column("output_json", Json(any_value=True)),
            *_usage(),
            sa.Column("duration_s", Real),
            sa.Column("time_to_first_token_s", Real),
            sa.Column("error", Text),
            # Of an open run: the state it started from. Of a finished one: the state after it.
            sa.Column("session_state", Json),
            sa.Column("created_at", Whole),
            sa.Column("finished_at", Whole),
            # The process that writes an open run, so that `check` can tell a live one from an interrupted one.
            sa.Column("process", Text),
            # The run that this one copies, where a branch took its own copy: its usage is not this session's.
            sa.Column("copied_from", Text),
            # What ingest compares to see whether a record has changed.
            sa.Column("source_hash", Text),
            sa.Column("extra", Json),
            # What kern_nb notes for its own use (`extra_keys`); ``extra`` is the source's.
            sa.Column("internal", Json),
        )
        self.messages = table(
            "_messages",
            _key("run_id", Text, indexed=indexed),
            _key("message_index", Whole, indexed=indexed),
            sa.Column("session_id", Text, nullable=False),
            sa.Column("run_index", Whole, nullable=False),
            sa.Column("message_id", Text),
            sa.Column("role", Text, nullable=False),
            sa.Column("content", Text),
            sa.Column("content_json", Json(any_value=True)),
            sa.Column("tool_call_id", Text),
            sa.Column("tool_name", Text),
            sa.Column("is_error", Flag),
            sa.Column("model", Text),
            *_usage(),
            sa.Column("created_at", Whole),
            sa.Column("extra", Json),
            # A copy of a message of an earlier run, which is counted there; the beginning of an answer that broke off.
            sa.Column("from_history", Flag),
            sa.Column("partial", Flag),
            sa.Column("internal", Json),
        )
        self.tool_calls = table(
            "_tool_calls",
            _key("run_id", Text, indexed=indexed),
            _key("tool_call_id", Text, indexed=indexed),
            sa.Column("session_id", Text, nullable=False),
            sa.Column("run_index", Whole, nullable=False),
            sa.Column("message_index", Whole),
            # The place among the calls of the run: ids sort in no useful order.
            sa.Column("call_index", Whole, nullable=False),
            sa.Column("tool_name", Text),
            sa.Column("caller", Text, nullable=False),
            sa.Column("args", Json(any_value=True)),
            sa.Column("result", Text),
            sa.Column("result_json", Json(any_value=True)),
            sa.Column("status", Text, nullable=False),
            sa.Column("duration_s", Real),
            sa.Column("created_at", Whole),
            sa.Column("extra", Json),
            sa.Column("internal", Json),
        )
        self.requirements = table(
            "_requirements",
            _key("requirement_id", Text),
            sa.Column("session_id", Text, nullable=False),
            sa.Column("run_id", Text, nullable=False),
            sa.Column("kind", Text, nullable=False),
            sa.Column("status", Text, nullable=False),
            sa.Column("tool_call_id", Text),
            sa.Column("tool_name", Text),
            sa.Column("args", Json(any_value=True)),
            sa.Column("prompt", Text),
            sa.Column("assignee", Text),
            sa.Column("approved", Flag),
            sa.Column("answer", Json(any_value=True)),
            sa.Column("note", Text),
            sa.Column("created_at", Whole),
            sa.Column("resolved_at", Whole),
            sa.Column("resolved_by", Text),
            sa.Column("claimed_by", Text),
            sa.Column("expires_at", Whole),
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
            sa.Column("created_at", Whole),
        )
        self.blobs = table(
            "_blobs",
            _key("sha256", Text),
            sa.Column("media_type", Text),
            sa.Column("size", Whole, nullable=False),
            sa.Column("content", sa.LargeBinary, nullable=False),
        )
        # Shared by all workloads of a database: a row is one session_table and the version of its tables.
        self.schema = sa.Table(
            "kern_schema",
            self.metadata,
            _key("session_table", Text),
            sa.Column("version", Whole, nullable=False),
        )
        self.of_session = (self.runs, self.messages, self.tool_calls, self.requirements, self.scores)
        for owner in self.metadata.sorted_tables:
            for column in owner.columns:
                if isinstance(column.type, Decoded):
                    column.type.column = column
        if indexed:
            self._index()

    def _index(self) -> None:
        s, m = self.sessions.c, self.messages.c
        sa.Index(f"{self.name}_by_time", newest_first(s.created_at), s.session_id)
        sa.Index(f"{self.name}_by_parent", s.parent_session_id)
        r = self.runs.c
        of_members = r.parent_run_id.is_not(None)  # few runs have a parent: an append of another costs nothing
        sa.Index(
            f"{self.name}_runs_by_parent",
            r.session_id,
            r.parent_run_id,
            sqlite_where=of_members,
            postgresql_where=of_members,
        )
        sa.Index(f"{self.name}_messages_by_run", m.session_id, m.run_index, m.message_index)
        sa.Index(f"{self.name}_tool_calls_by_run", self.tool_calls.c.session_id, self.tool_calls.c.run_index)
        sa.Index(f"{self.name}_requirements_by_run", self.requirements.c.run_id)
        sa.Index(f"{self.name}_requirements_by_session", self.requirements.c.session_id)
        sa.Index(f"{self.name}_scores_by_session", self.scores.c.session_id)


UNKNOWN_TIME = -(2**62)


def newest_first(created_at: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """What sessions are listed by, descending: those of unknown time come last."""
    return sa.func.coalesce(created_at, sa.literal_column(str(UNKNOWN_TIME)))


def starts_with(column: sa.Column[str], prefix: str) -> sa.ColumnElement[bool]:
    """Whether a text starts with another, letter by letter: LIKE would fold case on some engines."""
    stored = codec.encode_text(prefix)
    return sa.func.substr(sa.type_coerce(column, sa.Text()), 1, len(stored)) == sa.literal(stored, sa.Text())


MIGRATIONS: dict[int, list[tuple[str, str]]] = {
    2: [("requirements", "claimed_by"), ("requirements", "expires_at"), ("messages", "is_error")],
    3: [("requirements", "approved"), ("requirements", "extra")],
    4: [
        ("messages", "from_history"),
        ("messages", "partial"),
        ("messages", "internal"),
        ("tool_calls", "internal"),
        ("runs", "internal"),
    ],
}
"""For each version but the first: the columns it added, as (attribute of `Tables`, column name)."""

_MARKS_MOVED = 4
"""The version in which kern_nb's own marks left ``extra``."""


def create(
    connection: Connection, tables: Tables, *, beside_others: bool = False, database: str = "The database"
) -> None:
    """Make the tables of a workload, or bring older ones up to date.

    Args:
        connection: A connection in a writing transaction.
        tables: The tables.
        beside_others: See `version`.
        database: See `version`.

    Raises:
        SchemaTooNew: a newer kern_nb wrote them; nothing was changed.
        ForeignLayout: the database is another program's, or a table of that name is; nothing was changed.
    """
    found = version(connection, tables, beside_others=beside_others, database=database)
    tables.metadata.create_all(connection)
    if found is None:
        connection.execute(tables.schema.insert().values(session_table=tables.name, version=SCHEMA_VERSION))
    elif found < SCHEMA_VERSION:
        for step in range(found + 1, SCHEMA_VERSION + 1):
            for owner, name in MIGRATIONS[step]:
                _add_column(connection, getattr(tables, owner), name)
            if step == _MARKS_MOVED:
                extra_keys.upgrade_messages(connection, tables.messages)
                extra_keys.upgrade_runs(connection, tables.runs)
                for index in tables.runs.indexes:
                    index.create(connection, checkfirst=True)
                extra_keys.upgrade_texts(connection, tables)
        connection.execute(
            tables.schema.update().where(tables.schema.c.session_table == tables.name).values(version=SCHEMA_VERSION)
        )


def version(
    connection: Connection, tables: Tables, *, beside_others: bool = False, database: str = "The database"
) -> int | None:
    """The version of a workload's tables, None where there are none. Reads the catalog only.

    Args:
        connection: A connection to the database.
        tables: The tables that a store would use.
        beside_others: Whether ours may be made in a database that has other programs' tables and none of ours.
        database: What a refusal calls the database.

    Raises:
        SchemaTooNew: it is newer than this kern_nb knows.
        ForeignLayout: there is a table of that name which is not ours, or the database is another program's.
    """
    objects = catalog.list_objects(connection, tables.metadata.schema)
    if not has_ours(connection, tables, objects, beside_others=beside_others, database=database):
        return None
    known = sa.select(tables.schema.c.version).where(tables.schema.c.session_table == tables.name)
    found = connection.execute(known).scalar()
    if found is None:
        _refuse_taken_names(connection, tables, objects)
    elif found > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"The tables of {tables.name!r} are of schema version {found}; this kern_nb knows up to {SCHEMA_VERSION}.",
            "Upgrade kern_nb: pip install -U kern-nb. Nothing was changed.",
        )
    return found


def has_ours(
    connection: Connection,
    tables: Tables,
    objects: catalog.DatabaseObjects,
    *,
    beside_others: bool,
    database: str,
) -> bool:
    """Whether a database has tables of kern_nb, of whichever workload: ``kern_schema`` says so.

    Raises:
        ForeignLayout: it has tables or views, and none of ours.
    """
    schema = tables.metadata.schema
    if tables.schema.name in objects.own:
        columns = catalog.columns(connection, tables.schema.name, schema)
        if set(tables.schema.columns.keys()) <= columns:
            return True
        raise foreign_layout(tables.schema.name, columns)
    _refuse_taken_names(connection, tables, objects)
    if objects.all and not beside_others:
        raise foreign_database(database, objects.all, catalog.columns_by_table(connection, objects.own, schema))
    return False


def _refuse_taken_names(connection: Connection, tables: Tables, objects: catalog.DatabaseObjects) -> None:
    """No table is ours before kern_schema says so, whatever its columns."""
    for table in tables.metadata.sorted_tables:
        if table is not tables.schema and (taken := objects.taken(table.name)):
            raise foreign_layout(taken, catalog.columns(connection, taken, tables.metadata.schema))


def foreign_database(
    database: str, names: AbstractSet[str], described: Mapping[str, AbstractSet[str]]
) -> ForeignLayout:
    """The refusal of a database that has tables and none of ours."""
    program = foreign_layouts.identify_program(described)
    layout = f"the layout of {program}" if program else "an unknown layout"
    return ForeignLayout(
        f"{database} is another program's, in {layout}: its tables are {foreign_layouts.name_list(names)}. "
        "None is of kern_nb, and nothing was changed.",
        "Attach another file or database; or have ours made beside them: session_table='kern_sessions', in a notebook "
        "--table kern_sessions.",
    )


def foreign_layout(table: str, columns: AbstractSet[str]) -> ForeignLayout:
    """The refusal of a table that has our name and not our columns."""
    program = foreign_layouts.identify_program({table: columns})
    if program:
        return ForeignLayout(
            f"The table {table!r} is in the layout of {program}; kern_nb does not write into it.",
            "Keep both in one database with another name for ours: session_table='kern_sessions'.",
        )
    return ForeignLayout(
        f"The table {table!r} is not a session table of kern_nb: its columns are {foreign_layouts.name_list(columns)}.",
        "Choose another name for ours: session_table='kern_sessions'.",
    )


def _add_column(connection: Connection, table: sa.Table, name: str) -> None:
    preparer = connection.dialect.identifier_preparer
    kind = table.c[name].type.compile(connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {preparer.format_table(table)} ADD COLUMN {preparer.quote(name)} {kind}")
