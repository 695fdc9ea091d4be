"""The tables of a store, the schema's version, and the way from an older one.

`Tables` builds the SQLAlchemy tables for one ``session_table`` name; any name isolates a workload. Times are BIGINT:
unix seconds on sessions, as documented, and unix microseconds elsewhere. JSON is TEXT, written by `codec`: the same
bytes on every engine. A text column beside a ``*_json`` one is what people read; the JSON is set where the value is
no text.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import catalog, codec, foreign_layouts
from kern_nb.errors import BadUsage, ForeignLayout, SchemaTooNew

SCHEMA_VERSION = 3

SESSION_TABLE = "agno_sessions"
"""The documented default. A caller who names another one agrees to tables of ours beside other programs'."""


class Text(sa.types.TypeDecorator[str]):
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
        return codec.encode_text(value)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> str | None:
        """Undo the escapes."""
        return None if value is None else codec.decode_text(value)


def not_text(value: object) -> BadUsage:
    """The refusal of an id, or other text, that is none."""
    return BadUsage(f"{value!r} is no text.", "Ids and names are text: str(value) makes it one.")


class Json(sa.types.TypeDecorator[object]):
    """Any value that `codec` knows. None is NULL."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: object, dialect: sa.Dialect) -> str | None:
        """Encode."""
        return None if value is None else codec.dumps(value)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> object:
        """Decode."""
        return None if value is None else codec.loads(value)


USAGE = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "total_tokens",
    "cost",
)


def _usage() -> list[sa.Column[object]]:
    return [sa.Column(name, sa.Double if name == "cost" else sa.BigInteger) for name in USAGE]


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
            sa.Column("created_at", sa.BigInteger),
            sa.Column("updated_at", sa.BigInteger),
            sa.Column("parent_session_id", Text),
            sa.Column("fork_run_index", sa.BigInteger),
            sa.Column("fork_message_index", sa.BigInteger),
            sa.Column("duration_s", sa.Double),
        )
        self.runs = table(
            "_runs",
            _key("session_id", Text),
            _key("run_index", sa.BigInteger),
            sa.Column("run_id", Text, nullable=False, unique=True),
            sa.Column("parent_run_id", Text),
            sa.Column("run_type", Text, nullable=False),
            *(sa.Column(name, Text) for name in ("agent_id", "team_id", "workflow_id", "user_id")),
            sa.Column("status", Text, nullable=False),
            sa.Column("model", Text),
            sa.Column("model_provider", Text),
            sa.Column("input", Text),
            sa.Column("input_json", Json),
            sa.Column("output", Text),
            sa.Column("output_json", Json),
            *_usage(),
            sa.Column("duration_s", sa.Double),
            sa.Column("time_to_first_token_s", sa.Double),
            sa.Column("error", Text),
            # Of an open run: the state it started from. Of a finished one: the state after it.
            sa.Column("session_state", Json),
            sa.Column("created_at", sa.BigInteger),
            sa.Column("finished_at", sa.BigInteger),
            # The process that writes an open run, so that `check` can tell a live one from an interrupted one.
            sa.Column("process", Text),
            # The run that this one copies, where a branch took its own copy: its usage is not this session's.
            sa.Column("copied_from", Text),
            # What ingest compares to see whether a record has changed.
            sa.Column("source_hash", Text),
            sa.Column("extra", Json),
        )
        self.messages = table(
            "_messages",
            _key("run_id", Text, indexed=indexed),
            _key("message_index", sa.BigInteger, indexed=indexed),
            sa.Column("session_id", Text, nullable=False),
            sa.Column("run_index", sa.BigInteger, nullable=False),
            sa.Column("message_id", Text),
            sa.Column("role", Text, nullable=False),
            sa.Column("content", Text),
            sa.Column("content_json", Json),
            sa.Column("tool_call_id", Text),
            sa.Column("tool_name", Text),
            sa.Column("is_error", sa.Boolean),
            sa.Column("model", Text),
            *_usage(),
            sa.Column("created_at", sa.BigInteger),
            sa.Column("extra", Json),
        )
        self.tool_calls = table(
            "_tool_calls",
            _key("run_id", Text, indexed=indexed),
            _key("tool_call_id", Text, indexed=indexed),
            sa.Column("session_id", Text, nullable=False),
            sa.Column("run_index", sa.BigInteger, nullable=False),
            sa.Column("message_index", sa.BigInteger),
            # The place among the calls of the run: ids sort in no useful order.
            sa.Column("call_index", sa.BigInteger, nullable=False),
            sa.Column("tool_name", Text),
            sa.Column("caller", Text, nullable=False),
            sa.Column("args", Json),
            sa.Column("result", Text),
            sa.Column("result_json", Json),
            sa.Column("status", Text, nullable=False),
            sa.Column("duration_s", sa.Double),
            sa.Column("created_at", sa.BigInteger),
            sa.Column("extra", Json),
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
            sa.Column("args", Json),
            sa.Column("prompt", Text),
            sa.Column("assignee", Text),
            sa.Column("approved", sa.Boolean),
            sa.Column("answer", Json),
            sa.Column("note", Text),
            sa.Column("created_at", sa.BigInteger),
            sa.Column("resolved_at", sa.BigInteger),
            sa.Column("resolved_by", Text),
            sa.Column("claimed_by", Text),
            sa.Column("expires_at", sa.BigInteger),
            sa.Column("extra", Json),
        )
        self.scores = table(
            "_scores",
            _key("score_id", Text),
            sa.Column("session_id", Text, nullable=False),
            sa.Column("run_id", Text),
            sa.Column("name", Text, nullable=False),
            sa.Column("value", sa.Double),
            sa.Column("source", Text),
            sa.Column("created_at", sa.BigInteger),
        )
        self.blobs = table(
            "_blobs",
            _key("sha256", Text),
            sa.Column("media_type", Text),
            sa.Column("size", sa.BigInteger, nullable=False),
            sa.Column("content", sa.LargeBinary, nullable=False),
        )
        # Shared by all workloads of a database: a row is one session_table and the version of its tables.
        self.schema = sa.Table(
            "kern_schema",
            self.metadata,
            _key("session_table", Text),
            sa.Column("version", sa.BigInteger, nullable=False),
        )
        self.of_session = (self.runs, self.messages, self.tool_calls, self.requirements, self.scores)
        if indexed:
            self._index()

    def _index(self) -> None:
        s, m = self.sessions.c, self.messages.c
        sa.Index(f"{self.name}_by_time", newest_first(s.created_at), s.session_id)
        sa.Index(f"{self.name}_by_parent", s.parent_session_id)
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
}
"""For each version but the first: the columns it added, as (attribute of `Tables`, column name)."""


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
    objects = catalog.objects(connection, tables.metadata.schema)
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
    objects: catalog.Objects,
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
        raise foreign_database(database, objects.all, catalog.described(connection, objects.own, schema))
    return False


def _refuse_taken_names(connection: Connection, tables: Tables, objects: catalog.Objects) -> None:
    """No table is ours before kern_schema says so, whatever its columns."""
    for table in tables.metadata.sorted_tables:
        if table is not tables.schema and (taken := objects.taken(table.name)):
            raise foreign_layout(taken, catalog.columns(connection, taken, tables.metadata.schema))


def foreign_database(
    database: str, names: AbstractSet[str], described: Mapping[str, AbstractSet[str]]
) -> ForeignLayout:
    """The refusal of a database that has tables and none of ours."""
    program = foreign_layouts.program_of(described)
    layout = f"the layout of {program}" if program else "an unknown layout"
    return ForeignLayout(
        f"{database} is another program's, in {layout}: its tables are {foreign_layouts.listed(names)}. "
        "None is of kern_nb, and nothing was changed.",
        "Attach another file or database; or have ours made beside them: session_table='kern_sessions', in a notebook "
        "--table kern_sessions.",
    )


def foreign_layout(table: str, columns: AbstractSet[str]) -> ForeignLayout:
    """The refusal of a table that has our name and not our columns."""
    program = foreign_layouts.program_of({table: columns})
    if program:
        return ForeignLayout(
            f"The table {table!r} is in the layout of {program}; kern_nb does not write into it.",
            "Keep both in one database with another name for ours: session_table='kern_sessions'.",
        )
    return ForeignLayout(
        f"The table {table!r} is not a session table of kern_nb: its columns are {foreign_layouts.listed(columns)}.",
        "Choose another name for ours: session_table='kern_sessions'.",
    )


def _add_column(connection: Connection, table: sa.Table, name: str) -> None:
    preparer = connection.dialect.identifier_preparer
    kind = table.c[name].type.compile(connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {preparer.format_table(table)} ADD COLUMN {preparer.quote(name)} {kind}")
