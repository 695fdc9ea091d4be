"""`ForeignStore`: the sessions of another program's database, as a read-only store."""

from __future__ import annotations

import warnings

from kern_nb.db.memory import InMemoryDb
from kern_nb.errors import ReadOnlyStore
from kern_nb.foreign.database import ForeignDatabase
from kern_nb.ingest_report import IngestReport
from kern_nb.text.formatting import pluralize


class ForeignStore(InMemoryDb):
    """The sessions of another program's database, with the frames, SQL and views of any store. It refuses writes.

    The sessions are read into memory when the database is opened, and again by `refresh`.

    Attributes:
        format: The name of the importer that reads the database, as in `kern_nb.formats`; several, separated by
            commas, if a PostgreSQL database has tables of several programs.
        report: What was read, and the records that could not be read.

    Example:
        >>> import sqlite3, kern_nb
        >>> with sqlite3.connect("theirs.db") as theirs:  # a session of the OpenAI Agents SDK
        ...     _ = theirs.execute("CREATE TABLE agent_sessions (session_id, created_at, updated_at)")
        ...     _ = theirs.execute("CREATE TABLE agent_messages (id, session_id, message_data, created_at)")
        ...     row = (1, "s1", '{"role": "user", "content": "Hello"}', "2026-01-31 12:00:00")
        ...     _ = theirs.execute("INSERT INTO agent_messages VALUES (?, ?, ?, ?)", row)
        >>> theirs.close()
        >>> with kern_nb.db.open_store("theirs.db") as store:
        ...     (store.format, store.read_only, list(store.messages_df()["content"]))
        ('openai_agents', True, ['Hello'])
    """

    def __init__(self, database: ForeignDatabase) -> None:
        super().__init__()
        self._foreign = database
        self.url = database.url
        self.format = database.format
        self.read_only = True
        self._state: object = None
        self.report = IngestReport()
        try:
            self.refresh()
        except BaseException:
            self.close()
            raise

    def refresh(self) -> None:
        """Read the sessions again, if the program may have written since. Until that is done, the old ones are there.

        `report` says what was read.

        Raises:
            StoreUnavailable: the database does not exist, or cannot be reached.
        """
        state = self._foreign.state()
        if state is not None and state == self._state:
            return
        fresh = InMemoryDb(session_table=self.tables.name)
        try:
            fresh.write(lambda _: None)  # create the tables
            report = self._foreign.read_into(fresh)
        except BaseException:
            fresh.close()
            raise
        self.close()
        self._adopt(fresh)
        self._state, self.report = state, report
        if report.errors:
            message = (
                f"{pluralize(len(report.errors), 'record')} of {self.url} cannot be read; store.report lists them."
            )
            warnings.warn(message, stacklevel=2)

    def reopen(self) -> None:
        """Read what the program has written since; see `refresh`."""
        self.refresh()

    def _prepare_write(self) -> None:
        """Refuse to write."""
        raise ReadOnlyStore(
            f"{self.url} belongs to another program ({self.format}) and is read in place; nothing was written.",
            "Import it into a store of your own: attach that store, then %kern import PATH.",
        )

    def _adopt(self, fresh: InMemoryDb) -> None:
        """Take over the connections of another store."""
        self._lease, self._found = fresh._lease, True  # noqa: SLF001
        for name in ("engine", "statements", "_group"):  # they belong to the old connections
            vars(self).pop(name, None)
