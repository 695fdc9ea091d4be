"""Creating a store's tables, the version of its schema, and upgrades from older versions.

``kern_schema`` has one row per workload of a database. Tables that it does not list are another program's: they are
refused and never changed.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from functools import lru_cache
from operator import attrgetter

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from kern_nb.db import catalog, key_upgrades
from kern_nb.db.schema import Tables
from kern_nb.db.statement_cache import shared_dialect
from kern_nb.errors import ForeignLayout, NotAStore, SchemaTooNew

SCHEMA_VERSION = 7

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
    5: [("sessions", "source_key"), ("runs", "cost_source"), ("messages", "cost_source")],
    6: [("sessions", "revision"), ("runs", "heartbeat_at")],
    7: [("sessions", "last_deleted_run_index"), ("sessions", "missing_parent")],
}
"""For each version but the first: the columns it added, as (attribute of `Tables`, column name)."""

_INTERNAL_COLUMN_VERSION = 4  # moved kern_nb's own keys from ``extra`` to ``internal``
_REQUIREMENT_KEY_VERSION = 6  # the ids of requirements are unique within a run, no longer in the store


def create_tables(
    connection: Connection, tables: Tables, *, beside_others: bool = False, database: str = "The database"
) -> None:
    """Create the tables of a workload, or upgrade older ones, in a writing transaction.

    Arguments and errors are those of `read_version`; after an error nothing was changed.
    """
    version = read_version(connection, tables, beside_others=beside_others, database=database)
    if version is None:
        for statement in _creation_statements(tables, shared_dialect(connection.dialect)):
            connection.exec_driver_sql(statement)
        connection.execute(tables.schema.insert().values(session_table=tables.name, version=SCHEMA_VERSION))
    elif version < SCHEMA_VERSION:
        tables.metadata.create_all(connection)
        # All columns first: DuckDB cannot alter a table of which the transaction has changed rows.
        for step in range(version + 1, SCHEMA_VERSION + 1):
            for table, column in MIGRATIONS[step]:
                _add_column(connection, getattr(tables, table), column)
        if version < _REQUIREMENT_KEY_VERSION:
            _renew_primary_key(connection, tables.requirements)
        if version < _INTERNAL_COLUMN_VERSION:
            key_upgrades.upgrade_messages(connection, tables.messages)
            key_upgrades.upgrade_runs(connection, tables.runs)
            key_upgrades.upgrade_texts(connection, tables)
        for index in tables.sessions.indexes | tables.runs.indexes | tables.requirements.indexes:
            connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))
        connection.execute(
            tables.schema.update().where(tables.schema.c.session_table == tables.name).values(version=SCHEMA_VERSION)
        )


@lru_cache(maxsize=32)
def _creation_statements(tables: Tables, dialect: sa.Dialect) -> list[str]:
    """The DDL of a workload; only ``kern_schema`` may exist already."""
    statements: list[sa.schema.ExecutableDDLElement] = []
    for table in tables.metadata.sorted_tables:
        statements.append(sa.schema.CreateTable(table, if_not_exists=table is tables.schema))
        statements += map(sa.schema.CreateIndex, sorted(table.indexes, key=attrgetter("name")))
    return [str(statement.compile(dialect=dialect)) for statement in statements]


def read_version(
    connection: Connection, tables: Tables, *, beside_others: bool = False, database: str = "The database"
) -> int | None:
    """The version of a workload's tables, None if they do not exist. Reads the catalog only.

    With ``beside_others``, they may be created in a database that has only other programs' tables. ``database`` is the
    name of the database in errors.

    Raises:
        SchemaTooNew: the version is newer than this kern_nb supports.
        ForeignLayout: the database, or a table of one of these names, is another program's.
    """
    objects = catalog.list_objects(connection, tables.metadata.schema)
    if not has_kern_tables(connection, tables, objects, beside_others=beside_others, database=database):
        return None
    query = sa.select(tables.schema.c.version).where(tables.schema.c.session_table == tables.name)
    version = connection.execute(query).scalar()
    if version is None:
        _require_free_names(connection, tables, objects)
    elif version > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"The tables of {tables.name!r} have schema version {version}; this kern_nb supports up to "
            f"{SCHEMA_VERSION}.",
            "Upgrade kern_nb: pip install -U kern-nb. Nothing was changed.",
        )
    return version


def has_kern_tables(
    connection: Connection, tables: Tables, objects: catalog.DatabaseObjects, *, beside_others: bool, database: str
) -> bool:
    """Whether a database with these tables and views has tables of kern_nb, of any workload. See `read_version`.

    Raises:
        ForeignLayout: the database has tables or views, and none of kern_nb's.
    """
    schema = tables.metadata.schema
    if tables.schema.name in objects.own:
        columns = catalog.columns(connection, tables.schema.name, schema)
        if set(tables.schema.columns.keys()) <= columns:
            return True
        raise _foreign_table_error(tables.schema.name, columns)
    _require_free_names(connection, tables, objects)
    if objects.all and not beside_others:
        columns_by_table = catalog.columns_by_table(connection, objects.own, schema)
        program = catalog.identify_program(columns_by_table)
        layout = f"the layout of {program}" if program else "an unknown layout"
        names = catalog.name_list(objects.all)
        raise ForeignLayout(
            f"{database} belongs to another program, in {layout}: its tables are {names}. "
            "It has no tables of kern_nb, and nothing was changed.",
            "Attach another file or database, or create tables beside the others: session_table='kern_sessions', in a "
            "notebook --table kern_sessions.",
        )
    return False


def _require_free_names(connection: Connection, tables: Tables, objects: catalog.DatabaseObjects) -> None:
    """Refuse a table of one of these names, whatever its columns: kern_schema does not list it."""
    for table in tables.metadata.sorted_tables:
        if table is not tables.schema and (name := objects.taken(table.name)):
            raise _foreign_table_error(name, catalog.columns(connection, name, tables.metadata.schema))


def _foreign_table_error(table: str, columns: AbstractSet[str]) -> ForeignLayout:
    program = catalog.identify_program({table: columns})
    if program:
        return ForeignLayout(
            f"The table {table!r} is in the layout of {program}; kern_nb does not write to it.",
            "Keep both in one database under another table name: session_table='kern_sessions'.",
        )
    return ForeignLayout(
        f"The table {table!r} is not a session table of kern_nb: its columns are {catalog.name_list(columns)}.",
        "Choose another table name: session_table='kern_sessions'.",
    )


def not_a_table_error(url: str, name: str) -> NotAStore:
    """The error for a view or a computed table in place of one of the store's tables."""
    return NotAStore(
        f"{url}: {name!r} computes its rows and is not a table of kern_nb.",
        "Choose another table name: session_table='kern_sessions'.",
    )


def _renew_primary_key(connection: Connection, table: sa.Table) -> None:
    """Give a table the primary key of its definition; its rows are kept."""
    if connection.dialect.name == "postgresql":
        preparer = connection.dialect.identifier_preparer
        name = sa.inspect(connection).get_pk_constraint(table.name, schema=table.schema)["name"]
        columns = ", ".join(preparer.quote(column.name) for column in table.primary_key)
        alter = f"ALTER TABLE {preparer.format_table(table)}"
        if name is not None:
            connection.exec_driver_sql(f"{alter} DROP CONSTRAINT {preparer.quote(name)}")
        connection.exec_driver_sql(f"{alter} ADD PRIMARY KEY ({columns})")
        return
    # The other engines cannot change a key: the rows are copied into a new table.
    copied = (sa.Column(column.name, column.type) for column in table.columns)
    copy = sa.Table(f"{table.name}_copy", sa.MetaData(), *copied, prefixes=["TEMPORARY"])
    connection.execute(sa.schema.CreateTable(copy))
    connection.execute(copy.insert().from_select(copy.columns.keys(), sa.select(table)))
    connection.execute(sa.schema.DropTable(table))
    connection.execute(sa.schema.CreateTable(table))
    connection.execute(table.insert().from_select(copy.columns.keys(), sa.select(copy)))
    connection.execute(sa.schema.DropTable(copy))


def _add_column(connection: Connection, table: sa.Table, name: str) -> None:
    preparer = connection.dialect.identifier_preparer
    kind = table.c[name].type.compile(connection.dialect)
    connection.exec_driver_sql(f"ALTER TABLE {preparer.format_table(table)} ADD COLUMN {preparer.quote(name)} {kind}")
