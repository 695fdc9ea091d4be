"""Sessions of the OpenAI Agents SDK: ``SQLiteSession``, ``AdvancedSQLiteSession``, ``SQLAlchemySession``.

The tables may have any name. A session is a list of items of the Responses API, which `openai_responses.items` maps to
messages; a run starts with a person's item. The SDK stores neither models nor the tokens of runs, except those that
``store_run_usage`` adds to the turns of an ``AdvancedSQLiteSession``: its turns are our runs, and its branches, which
share items with the branch that they come from, branches. Items that ``EncryptedSession`` wrote cannot be read.

Times have a resolution of a second, in UTC, and are those of storing: a run of less has no duration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kern_nb.ingest.importer import RECORD_ERRORS, Draft, error_text, hash_record
from kern_nb.ingest.importers.openai_agents.tables import Branch, Item, Reader, StoredSession, find_layouts
from kern_nb.ingest.importers.openai_responses.items import parse_items, parse_numbered_items
from kern_nb.ingest.parsing.table_importer import TableImporter
from kern_nb.ingest.parsing.table_rows import AnyConnection, Tables, unused_id
from kern_nb.ingest.parsing.times import to_unix_seconds
from kern_nb.ingest.parsing.usage import parse_usage
from kern_nb.ingest.parsing.values import drop_null, first_count, to_object, to_text
from kern_nb.ingest.run_splitter import SourceMessage, split_runs
from kern_nb.ingest_report import Problem
from kern_nb.records import Message, Run, Session, Usage

NAME = "openai_agents"

_COUNTS = ("input_tokens", "output_tokens", "total_tokens")
_DETAILS = ("input_tokens_details", "output_tokens_details")


class OpenAIAgents(TableImporter):
    """Databases of the OpenAI Agents SDK."""

    name = NAME
    reads = "sessions of the OpenAI Agents SDK in SQLite and PostgreSQL, with branches and usage"

    def has_layout(self, tables: Tables) -> bool:
        """A table of items and one of sessions, with the columns of the SDK."""
        return bool(find_layouts(tables))

    def read_tables(
        self, connection: AnyConnection, tables: Tables, *, schema: str | None = None, file: str = "database"
    ) -> Iterator[Draft | Problem]:
        """Yield each session before its branches."""
        used: set[str] = set()
        for layout in find_layouts(tables, connection):
            reader = Reader(connection, tables, layout, schema)
            for row in reader.session_rows():
                session = reader.load(row)
                yield from _SessionReader(session, file, unused_id(session.session_id, layout.messages, used)).read()


@dataclass
class _SessionReader:
    """Makes the drafts of one session.

    Attributes:
        session_id: Its id in the drafts.
        problems: What of it cannot be imported.
    """

    stored: StoredSession
    file: str
    session_id: str
    problems: dict[str, None] = field(default_factory=dict)

    def read(self) -> Iterator[Draft | Problem]:
        """Yield the drafts of a session, and its problems."""
        self.problems |= dict.fromkeys(self.stored.problems)
        for branch in self.stored.branches:
            try:
                yield self._draft(branch)
            except RECORD_ERRORS as error:
                name = "" if branch.is_main else f"branch {branch.name!r} "
                self.problems[f"{name}is not imported: {error_text(error)}"] = None
        for reason in self.problems:
            yield Problem(self.file, None, f"Session {self.stored.session_id!r}: {reason.rstrip('.')}.")

    def _draft(self, branch: Branch) -> Draft:
        items = [item for item in branch.items if self._is_readable(item)]
        messages: list[SourceMessage] = []
        first: list[int] = []
        for index, message in parse_numbered_items([item.value for item in items]):
            _complete(message.message, items[index])
            messages.append(message._replace(key=items[index].key))
            first.append(index)
        session = Session(
            session_id=self.session_id if branch.is_main else f"{self.session_id}~{branch.name}",
            agent_id=NAME,
            session_data=None if branch.is_main else {"session_name": branch.name},
            metadata=None if branch.is_main else {"branch_id": branch.name},
            created_at=to_unix_seconds(branch.created_at or self.stored.created_at),
            updated_at=to_unix_seconds(self.stored.updated_at),
        )
        runs, hashes, keys = split_runs(session.session_id, messages)
        end = 0
        for number, run in enumerate(runs):
            start, end = end, end + len(run.messages)
            until = first[end] if end < len(first) else len(items)
            hashes[number] = hash_record(hashes[number], self._describe(run, items[first[start] : until]))
        return Draft(
            file=self.file,
            line=lambda: 1,
            session=session,
            runs=runs,
            hashes=hashes,
            keys=keys,
            session_hash=hash_record(session.model_dump(exclude={"runs"})),
            source=NAME,
            has_record_ids=True,
        )

    def _is_readable(self, item: Item) -> bool:
        """Whether an item is one: a malformed one does not reject the others."""
        try:
            parse_items([item.value])
        except RECORD_ERRORS as error:
            reason = "it is encrypted" if to_object(item.value).get("__enc__") == 1 else error_text(error)
            self.problems[f"item {item.row_id} is not imported: {reason.removeprefix('item 0: ')}"] = None
            return False
        return True

    def _describe(self, run: Run, items: Sequence[Item]) -> list[Any]:
        """Set what is stated about a run; return it."""
        run.duration_s = run.duration_s or None
        rows = [
            self.stored.usage[turn] for turn in dict.fromkeys(item.turn for item in items) if turn in self.stored.usage
        ]
        usages = [_to_usage(row) for row in rows]
        if any(usage is not None for usage in usages):
            run.usage = Usage.total(usages)
        if rows:
            run.extra = {"usage": rows[0] if len(rows) == 1 else rows}
        return rows


def _complete(message: Message, item: Item) -> None:
    """Set the time at which an item was stored, and the model, which the SDK adds to the items of some providers."""
    message.created_at = message.created_at or item.created_at
    if message.role == "assistant" and message.model is None:
        extras = [message.extra, *(call.extra for call in message.tool_calls)]
        message.model = next((model for extra in extras if (model := _model(extra))), None)


def _model(extra: dict[str, Any]) -> str | None:
    return to_text(to_object(extra.get("provider_data")).get("model"))


def _to_usage(row: dict[str, Any]) -> Usage | None:
    """The tokens of a turn; the SDK writes 0 for what it does not know."""
    if not any(first_count(row, name) for name in _COUNTS):
        return None
    details = {name: drop_null(to_object(row.get(name))) for name in _DETAILS}
    return parse_usage({name: row.get(name) for name in _COUNTS} | details)
