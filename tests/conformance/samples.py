"""Shared by the conformance tests: records to store, values that are hard to store, and ways to inspect what is stored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from hypothesis import strategies as st

from kern_nb.db import SessionStore
from kern_nb.records import Message, Run, Session, ToolCall, Usage

WHEN = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


# Records -------------------------------------------------------------------------------------------------------------


def a_run(text: str = "hello", **fields: Any) -> Run:
    """A finished run of four messages and one tool call, its usage on the messages."""
    messages = [
        Message(role="user", content=text),
        Message(
            role="assistant",
            tool_calls=[ToolCall(tool_call_id="call", tool_name="look_up", args={"query": text})],
            usage=Usage(input_tokens=10, output_tokens=5),
        ),
        Message(role="tool", tool_call_id="call", tool_name="look_up", content=f"found {text}"),
        Message(role="assistant", content=f"answer to {text}", usage=Usage(input_tokens=20, output_tokens=7)),
    ]
    return Run(**{"input": text, "output": f"answer to {text}", "messages": messages} | fields)


def a_small_run(text: str = "hello", **fields: Any) -> Run:
    """A finished run of a question and an answer."""
    messages = [Message(role="user", content=text), Message(role="assistant", content=f"answer to {text}")]
    return Run(**{"input": text, "output": f"answer to {text}", "messages": messages} | fields)


def a_session(store: SessionStore, session_id: str = "chat", runs: int = 3, **fields: Any) -> Session:
    """Store a session of ``runs`` runs with inputs ``<session_id> 0`` and so on; returns it as stored."""
    for index in range(runs):
        store.append_run(session_id, a_run(f"{session_id} {index}", **fields))
    return load_session(store, session_id)


def load_session(store: SessionStore, session_id: str) -> Session:
    """A session that exists."""
    session = store.get_session(session_id)
    assert session is not None
    assert session.runs is not None
    return session


def message_contents(messages: list[Message]) -> list[Any]:
    """The contents of messages."""
    return [message.content for message in messages]


def inputs(session: Session) -> list[Any]:
    """The input of each run."""
    return [run.input for run in session.runs or []]


def parts_of(session: Session) -> list[dict[str, Any]]:
    """The content of a session's runs, without ids that differ between copies."""
    return [run.model_dump(exclude={"run_id", "session_id", "parent_run_id"}) for run in session.runs or []]


# Values --------------------------------------------------------------------------------------------------------------

# Each has broken some store: NUL in PostgreSQL, lone surrogates in UTF-8, U+0010 in our own escapes, the rest in SQL text.
SPECIAL = (
    "", "\x00", "a\x00b", "\x10", "\x100000", "\x10d800", "\ud800", "\udfff", "\ud83d\ude00", "\ud83d", "\U0001f600", "\ufeff",
    "\uffff", "e\u0301", "\u202eevil", "'", '"', "\\", "\\u0000", "\\u00100000", "%", "%s", "%(x)s", ":x", "$x", "{x}",
    "null", "NaN", "$type", "\r\n", " ", "\u2028", "'; DROP TABLE agno_sessions; --",
)  # fmt: skip
UNSAFE = "\x00\x10\ud800\udc00\udfff0d8f\\u'\"%$"

texts = st.one_of(
    st.sampled_from(SPECIAL),
    st.text(st.characters(exclude_categories=()), max_size=12),
    st.text(st.sampled_from(UNSAFE), max_size=12),
)

exact_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**53, max_value=2**200),
    st.floats(),
    st.sampled_from([-0.0, float("inf"), float("-inf"), 1e-320, 1.7976931348623157e308, 0.1 + 0.2]),
    texts,
    st.decimals(),
    st.datetimes(),
    st.datetimes(timezones=st.timezones()),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.binary(max_size=20),
    st.complex_numbers(),
)
keys = st.one_of(
    texts,
    texts,
    st.sampled_from(["$type", "value", "type", "1", "null", "session_name", "session_state", "$type "]),
    st.integers(),
    st.booleans(),
    st.none(),
    st.floats(allow_nan=False),
    st.dates(),
    st.tuples(st.integers(), texts),
)
values = st.recursive(
    exact_scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(keys, inner, max_size=4),
        st.fixed_dictionaries({"$type": st.sampled_from(["dict", "decimal", "float", "none"]), "value": inner}),
        st.sets(st.one_of(texts, st.integers(), st.tuples(st.integers(), st.integers())), max_size=3),
    ),
    max_leaves=12,
)
"""Any value that comes back as it went in, tuples inside it apart from keys and members of sets."""


def difference(went_in: Any, came_out: Any, path: str = "value") -> str | None:
    """The first difference of two values, types, signs of zero, order of keys and trailing zeros included; None if equal."""
    if type(went_in) is not type(came_out):
        return f"{path}: {went_in!r} became {came_out!r} ({type(came_out).__name__})"
    if isinstance(went_in, dict):
        if len(went_in) != len(came_out):
            return f"{path}: keys {list(went_in)!r} became {list(came_out)!r}"
        pairs = zip(went_in.items(), came_out.items(), strict=True)
        found = [difference(a, b, f"{path}[{a[0]!r}]") for a, b in pairs]
        return next((text for text in found if text), None)
    if isinstance(went_in, (list, tuple)):
        if len(went_in) != len(came_out):
            return f"{path}: {len(went_in)} items became {len(came_out)}"
        pairs = enumerate(zip(went_in, came_out, strict=True))
        found = [difference(a, b, f"{path}[{i}]") for i, (a, b) in pairs]
        return next((text for text in found if text), None)
    if _exactly(went_in) != _exactly(came_out):
        return f"{path}: {went_in!r} became {came_out!r}"
    return None


def assert_none(wrong: dict[Any, Any]) -> None:
    """Fail with all findings of a test with many cases."""
    assert not wrong, "\n" + "\n".join(f"{name}: {finding}" for name, finding in wrong.items())


def _exactly(value: Any) -> Any:
    if isinstance(value, float | complex):
        return repr(value)
    if isinstance(value, Decimal):
        return value.as_tuple()
    if isinstance(value, datetime | time):  # a time that a zone skips equals no other, not even itself elsewhere
        return value.replace(tzinfo=None, fold=0), value.utcoffset()
    return value


# What is stored ------------------------------------------------------------------------------------------------------


def table_names(store: SessionStore) -> list[str]:
    """The tables and views of the database, ours or not."""
    if not store.is_there():
        return []
    with store.connect() as connection:
        inspector = sa.inspect(connection)
        return sorted([*inspector.get_table_names(), *inspector.get_view_names()])


def all_rows(store: SessionStore) -> dict[str, list[Any]]:
    """All rows of all tables, in a fixed order: equal before and after means that nothing was written."""
    found = {}
    for name in table_names(store):
        with store.connect() as connection:
            quoted = connection.dialect.identifier_preparer.quote(name)
            rows = connection.exec_driver_sql(f"SELECT * FROM {quoted}").fetchall()
        found[name] = sorted((tuple(row) for row in rows), key=repr)
    return found


def row_counts(store: SessionStore) -> dict[str, int]:
    """The number of rows of each table of the store."""
    return {name: len(rows) for name, rows in all_rows(store).items()}


def rows_naming(store: SessionStore, session_id: str) -> dict[str, int]:
    """The rows of a session in each table; tables without such rows are left out."""
    found: dict[str, int] = {}
    for table in (store.tables.sessions, *store.tables.session_tables):
        with store.connect() as connection:
            query = sa.select(sa.func.count()).select_from(table).where(table.c.session_id == session_id)
            if count := connection.execute(query).scalar_one():
                found[table.name] = count
    return found


class Statements(list[str]):
    """The SQL that a store sent, and the number of rows returned."""

    rows = 0

    def about(self, word: str) -> list[str]:
        """Those that contain a text."""
        return [statement for statement in self if word in statement]


@contextlib.contextmanager
def statements(store: SessionStore) -> Iterator[Statements]:
    """Record the SQL that a store sends to its database."""
    heard = Statements()

    def listen(connection: Any, cursor: Any, statement: str, *args: Any) -> None:
        heard.append(statement)

    result = sa.engine.CursorResult
    fetches = ("_fetchall_impl", "_fetchone_impl", "_fetchmany_impl", "_fetchiter_impl")
    kept = {name: getattr(result, name) for name in fetches}

    def counting(name: str) -> Any:
        def fetch(self: Any, *args: Any, **options: Any) -> Any:
            rows = kept[name](self, *args, **options)
            if name == "_fetchiter_impl":
                rows = list(rows)
                heard.rows += len(rows)
                return iter(rows)
            heard.rows += len(rows) if isinstance(rows, list) else rows is not None
            return rows

        return fetch

    sa.event.listen(store.engine, "before_cursor_execute", listen)
    try:
        for name in kept:
            setattr(result, name, counting(name))
        yield heard
    finally:
        for name, original in kept.items():
            setattr(result, name, original)
        sa.event.remove(store.engine, "before_cursor_execute", listen)
