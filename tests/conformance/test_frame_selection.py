"""Selection of columns and of values inside JSON: both in SQL, so that nothing else is computed."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import a_run, a_session, assert_none, keys, texts, values

from kern_nb.db import codec
from kern_nb.db.columns import DTYPES, FRAMES
from kern_nb.errors import BadUsage, UnstorableValue
from kern_nb.records import Message, Run, Session, ToolCall

NAMES = ("sessions", "runs", "messages", "tool_calls", "scores")
OF_LINEAGE = ("runs", "messages", "tool_calls")


def frame(store, name, *args, **requested) -> pd.DataFrame:
    """Return a frame by name."""
    return getattr(store, f"{name}_df")(*args, **requested)


@contextmanager
def statements(store):
    """Record the SELECTs that are sent to the engine."""
    sent: list[str] = []

    def note(_connection, _cursor, statement, *_):
        if statement != "BEGIN":
            sent.append(" ".join(statement.split()))

    sa.event.listen(store.engine, "before_cursor_execute", note)
    yield sent
    sa.event.remove(store.engine, "before_cursor_execute", note)


def tables_in(store, sql: str) -> set[str]:
    """Return the tables that a statement reads."""
    tables = store.tables
    named = {name: getattr(tables, name).name for name in NAMES}
    return {name for name, table in named.items() if re.search(rf'(FROM|JOIN)\s+\(*(?:\w+\.)?"?{table}"?(?![\w])', sql)}


@pytest.fixture
def filled(store):
    """Three sessions with metadata, state, runs, tool calls and scores."""
    for i in range(3):
        a_session(store, f"s{i}", runs=2, agent_id="ab"[i % 2], user_id="u")
        store.save_session(
            Session(
                session_id=f"s{i}",
                metadata={"task_id": f"t{i}", "n": i, "deep": {"er": [i]}},
                session_data={"session_name": f"name {i}", "session_state": {"step": i, "done": i > 0}},
                created_at=i,
            )
        )
        store.add_score(f"s{i}", "reward", i / 2)
    return store


# Columns -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_each_column_can_be_selected_alone(filled, name):
    """It has the values, dtype and order of the full frame."""
    whole = frame(filled, name)
    for column in whole:
        pd.testing.assert_frame_equal(frame(filled, name, columns=[column]), whole[[column]])


@pytest.mark.parametrize("name", NAMES)
def test_columns_keep_requested_order(filled, name):
    """Without duplicates; a single name or any iterable is accepted."""
    whole = frame(filled, name)
    backwards = list(whole)[::-1]
    pd.testing.assert_frame_equal(frame(filled, name, columns=backwards), whole[backwards])
    pd.testing.assert_frame_equal(frame(filled, name, columns=iter(backwards)), whole[backwards])
    pd.testing.assert_frame_equal(frame(filled, name, columns=pd.Index(backwards)), whole[backwards])
    pd.testing.assert_frame_equal(frame(filled, name, columns=["session_id"] * 2), whole[["session_id"]])
    pd.testing.assert_frame_equal(frame(filled, name, columns="session_id"), whole[["session_id"]])


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_selection_equals_part_of_full_frame(filled, data):
    """Totals are correct in any combination, with filters and a limit."""
    name = data.draw(st.sampled_from(NAMES))
    columns = data.draw(st.lists(st.sampled_from([c.name for c in FRAMES[name]]), min_size=1, unique=True))
    filters = data.draw(st.sampled_from([{}, {"limit": 2}, {"session_id": "s1"}, {"agent_id": "a"}, {"user_id": "u"}]))

    pd.testing.assert_frame_equal(
        frame(filled, name, columns=columns, **filters), frame(filled, name, **filters)[columns]
    )


@pytest.mark.parametrize("name", NAMES)
def test_selected_columns_of_empty_store_have_dtypes(store, name):
    """Also before the first write."""
    columns = [column for column in FRAMES[name] if column.kind in ("text", "count", "time", "number")][-3:]
    result = frame(store, name, columns=[column.name for column in columns], expand=["metadata.x"])

    assert len(result) == 0
    assert [str(dtype) for dtype in result.dtypes] == [*(DTYPES[column.kind] for column in columns), "string"]


def test_columns_combine_with_lineage(filled):
    """`inherited` can be selected or omitted."""
    filled.branch("s1", after=(1, 1), new_session_id="branch")
    filled.append_run("branch", a_run("own"))
    for name in OF_LINEAGE:
        whole = frame(filled, name, "branch", lineage=True)
        for columns in (["inherited"], ["run_index", "inherited"], ["run_id"], list(whole)[::-1]):
            result = frame(filled, name, "branch", lineage=True, columns=columns)
            pd.testing.assert_frame_equal(result, whole[columns])


@pytest.mark.parametrize(
    ("name", "columns", "read"),
    [
        ("runs", ["run_id", "status"], {"runs"}),
        ("runs", ["duration_s", "output"], {"runs"}),
        ("runs", ["n_messages"], {"runs", "messages"}),
        ("runs", ["total_tokens"], {"runs", "messages"}),
        ("runs", ["cost"], {"runs", "messages"}),
        ("runs", ["n_tool_errors"], {"runs", "tool_calls"}),
        ("sessions", ["session_id", "metadata"], {"sessions"}),
        ("sessions", ["session_name", "created_at"], {"sessions"}),
        ("sessions", ["status"], {"sessions", "runs"}),
        ("sessions", ["n_runs", "duration_s"], {"sessions", "runs"}),
        ("sessions", ["n_tool_calls"], {"sessions", "runs", "tool_calls"}),
        ("sessions", ["total_tokens"], {"sessions", "runs", "messages"}),
    ],
)
def test_unrequested_columns_are_not_computed(filled, name, columns, read):
    """The statement does not mention tables that only other columns need, with any filter."""
    for filters in ({}, {"limit": 2}, {"session_id": ["s1"]}, {"since": "1970-01-01", "agent_id": "a"}):
        with statements(filled) as sent:
            frame(filled, name, columns=columns, **filters)
        assert tables_in(filled, sent[-1]) == read, sent[-1]
    with statements(filled) as sent:
        frame(filled, name)
    assert tables_in(filled, sent[-1]) >= {"runs", "messages", "tool_calls"}


def test_unknown_columns_are_refused(store):
    """The hint suggests a column; an empty list is refused, too."""
    cases = [
        ("runs", ["run_id", "total_token"], "total_token", "total_tokens"),
        ("runs", ["metadata"], "metadata", "run_id"),
        ("messages", ["metadata.task_id"], "metadata.task_id", "expand=['metadata.task_id']"),
        ("messages", ["inherited"], "inherited", "lineage=True"),
        ("sessions", [3], "3", "strings"),
        ("sessions", [], "columns", "omit the argument"),
        ("sessions", [""], "''", "session_id"),
        ("tool_calls", ["expanded_0"], "expanded_0", ""),
        ("scores", ["score_id"], "score_id", "session_id"),
    ]
    for name, columns, message, hint in cases:
        with pytest.raises(BadUsage) as error:
            frame(store, name, columns=columns)
        assert message in str(error.value)
        assert hint in error.value.hint


# Filters reach SQL ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_filters_and_limits_run_in_the_engine(filled, name, monkeypatch):
    """The engine returns only the rows of the frame."""
    handed: list[int] = []
    real = filled.arrow

    def arrow(query):
        result = real(query)
        handed.append(result.num_rows)
        return result

    monkeypatch.setattr(filled, "arrow", arrow)
    for choice in (
        {},
        {"columns": ["session_id"]},
        {"columns": ["session_id"], "expand": ["metadata.n", "state.step"]},
    ):
        for filters in ({"limit": 2}, {"since": "1970-01-01T00:00:01"}, {"until": "1970-01-01T00:00:01"}, {"limit": 0}):
            with statements(filled) as sent:
                result = frame(filled, name, **filters, **choice)
            assert handed.pop() == len(result)
            assert ("LIMIT" in sent[-1]) is ("limit" in filters)
            assert ("created_at" in sent[-1].partition("WHERE")[2]) or "limit" in filters
            assert len(result) <= filters.get("limit", len(result))
    assert len(frame(filled, "sessions", since="1970-01-01T00:00:01", until="1970-01-01T00:00:02")) == 1


# Values inside JSON --------------------------------------------------------------------------------------------------


def test_every_frame_expands_metadata_and_state(filled):
    """The columns come last, with the requested names and the values of the row's session."""
    requested = ["metadata.task_id", "state.step", "metadata.deep.er", "state.done", "metadata.none"]
    for name in NAMES:
        whole = frame(filled, name)
        result = frame(filled, name, expand=requested)
        pd.testing.assert_frame_equal(result.drop(columns=requested), whole)
        assert list(result)[-5:] == requested
        assert {str(result[column].dtype) for column in requested} == {"string"}
        place = whole.session_id.str[1:]
        assert result["metadata.task_id"].tolist() == ("t" + place).tolist()
        assert result["state.step"].tolist() == place.tolist()
        assert result["metadata.deep.er"].tolist() == ("[" + place + "]").tolist()
        assert result["state.done"].tolist() == ["false" if p == "0" else "true" for p in place]
        assert result["metadata.none"].isna().all()
        assert len(result) >= 3


def test_expand_combines_with_every_filter(filled):
    """The rows, their order and the limit are those of the frame without expand."""
    filters = [
        {"limit": 2},
        {"session_id": "s1"},
        {"session_id": ["s2", "s0"]},
        {"user_id": "u"},
        {"user_id": "nobody"},
        {"agent_id": "a"},
        {"since": "1970-01-01T00:00:01", "limit": 1},
    ]
    for name in NAMES:
        for one in filters:
            result = frame(filled, name, columns=["session_id"], expand=["metadata.task_id"], **one)
            assert list(result) == ["session_id", "metadata.task_id"]
            assert result.session_id.tolist() == frame(filled, name, **one).session_id.tolist()
            assert result["metadata.task_id"].tolist() == ("t" + result.session_id.str[1:]).tolist()


def test_expand_reads_only_required_tables(filled):
    """A value of the session requires a join with the sessions; a value of the frame itself does not."""
    with statements(filled) as sent:
        filled.sessions_df(columns=["session_id"], expand=["metadata.task_id", "state.step"])
        filled.tool_calls_df(expand=["args.query"])
        filled.messages_df(columns=["content"], expand=["metadata.task_id", "state.step"])
    assert [tables_in(filled, sql) for sql in sent] == [{"sessions"}, {"tool_calls"}, {"messages", "sessions"}]
    assert sent[-1].count("JOIN") == 1


def test_inherited_rows_expand_values_of_their_session(filled):
    """With lineage: inherited rows have the metadata of the parent, own rows that of the branch."""
    filled.branch("s1", after=0, new_session_id="branch")
    filled.save_session(Session(session_id="branch", metadata={"task_id": "other"}))
    filled.append_run("branch", a_run("own"))
    for name in OF_LINEAGE:
        result = frame(filled, name, "branch", lineage=True, columns=["inherited"], expand=["metadata.task_id"])
        assert dict(zip(result.inherited, result["metadata.task_id"], strict=True)) == {True: "t1", False: "other"}


def test_tool_call_arguments_expand(store):
    """Strings are unquoted, other values JSON; a missing argument is missing."""
    arguments = [{"city": "Rome", "n": 1}, {"city": None}, {"city": ["a", {"b": 1.0}]}, {"n": True}, None]
    calls = [ToolCall(tool_call_id=f"{i}", tool_name="t", args=args) for i, args in enumerate(arguments)]
    store.append_run("s", Run(tool_calls=calls))
    result = store.tool_calls_df(columns=["tool_call_id"], expand=["args.city", "args.n"])

    assert result["args.city"].tolist() == ["Rome", pd.NA, '["a", {"b": 1.0}]', pd.NA, pd.NA]
    assert result["args.n"].tolist() == ["1", pd.NA, pd.NA, "true", pd.NA]


def test_expanded_column_is_a_text_column(filled):
    """It joins, groups and compares with text columns."""
    result = filled.messages_df(expand=["metadata.task_id"])
    tasks = filled.sessions_df(columns=["session_id", "total_tokens"], expand=["metadata.task_id"])
    merged = result.merge(tasks, on=["session_id", "metadata.task_id"])

    assert len(merged) == len(result)
    assert result.groupby("metadata.task_id").size().to_dict() == {f"t{i}": 8 for i in range(3)}


ODD_KEYS = (
    "", "*", "**", "$", "$.a", ".", "a.b", "a b", "a[0]", "[0]", "0", "-1", "#", "#-1", "/", "/a", "~", "~0", "~1", "'", '"', '""', "\\",
    '\\"', 'a"b', "a\\b", "a'; DROP TABLE agno_sessions; --", "%", "%s", "%(x)s", ":x", "?", "$1", "{x}", "\x00", "\x10", "\x100000",
    "\ud800", "\U0001f600", "e\u0301", "\u00e9", "\n", "\u2028", "null", "true", "A", "a", "x" * 500, "session_id", "$type ", "value",
)  # fmt: skip


def test_keys_with_any_characters_are_found(every_store):
    """No key is interpreted as a path, an index, a wildcard or SQL."""
    document = {key: f"at {place}" for place, key in enumerate(ODD_KEYS)}
    wrong = {}
    for engine, store in every_store.items():
        store.save_session(Session(session_id="s", metadata=document | {"in": document}))
        for place, key in enumerate(ODD_KEYS):
            for path in (("metadata", key), ["metadata", "in", key]):
                result = store.sessions_df(columns=["session_id"], expand=[path])
                if result.iloc[0].tolist() != ["s", f"at {place}"]:
                    wrong[engine, key] = result.iloc[0].tolist()
                if list(result)[1] != ".".join(path).replace("\ud800", "\ufffd"):
                    wrong[engine, key, "name"] = list(result)
        store.save_session(Session(session_id="s", metadata={"list": [1, 2, 3], "text": "abc", "number": 12}))
        for key in ODD_KEYS:
            requested = [
                ("metadata", key),
                ("metadata", "list", key),
                ("metadata", "text", key),
                ("metadata", "number", key),
            ]
            if not store.sessions_df(expand=requested).iloc[0, -4:].isna().all():
                wrong[engine, key, "not there"] = store.sessions_df(expand=requested).iloc[0, -4:].tolist()
    assert_none(wrong)


ODD_VALUES = {
    "text": ("text", "text"),
    "empty": ("", ""),
    "quoted": ('"', '"'),
    "nul": ("a\x00b", "a\x00b"),
    "surrogate": ("a\ud800b", "a\ufffdb"),
    "escape": ("\x100000", "\x100000"),
    "looks escaped": ("\\u00100000", "\\u00100000"),
    "null as text": ("null", "null"),
    "true": (True, "true"),
    "false": (False, "false"),
    "one": (1, "1"),
    "one as float": (1.0, "1.0"),
    "minus zero": (-0.0, "-0.0"),
    "sum": (0.1 + 0.2, "0.30000000000000004"),
    "large": (1e16, "1e+16"),
    "larger": (1.7976931348623157e308, "1.7976931348623157e+308"),
    "small": (5e-324, "5e-324"),
    "2^53 + 1": (2**53 + 1, "9007199254740993"),
    "2^63": (2**63, "9223372036854775808"),
    "2^64": (2**64, "18446744073709551616"),
    "-2^63 - 1": (-(2**63) - 1, "-9223372036854775809"),
    "2^200": (2**200, str(2**200)),
    "none": (None, pd.NA),
    "list": ([1, 1.0, None, "ä"], '[1, 1.0, null, "ä"]'),
    "dict": ({"b": 1e16, "a": {}}, '{"b": 1e+16, "a": {}}'),
    "nul within": (["\x00"], '["\\u0000"]'),
    "surrogate within": (["\ud800"], '["\\ud800"]'),
    "nan": (float("nan"), "nan"),
    "infinity": (float("-inf"), "-inf"),
    "decimal": (Decimal("1.10"), "1.10"),
    "date": (date(2026, 1, 2), "2026-01-02"),
    "time": (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"),
    "uuid": (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
}


def test_values_are_formatted_equally_on_all_engines(every_store):
    """Numbers with all digits, booleans as in JSON, texts unchanged, null as missing."""
    wrong = {}
    for engine, store in every_store.items():
        store.save_session(Session(session_id="s", metadata={name: value for name, (value, _) in ODD_VALUES.items()}))
        result = store.sessions_df(columns=["session_id"], expand=[("metadata", name) for name in ODD_VALUES]).iloc[0]
        for name, (_, expected) in ODD_VALUES.items():
            value = result[f"metadata.{name}"]
            if value is not expected and (value is pd.NA or expected is pd.NA or value != expected):
                wrong[engine, name] = (value, expected)
    assert_none(wrong)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=st.dictionaries(keys, values, min_size=1, max_size=5), absent=texts)
def test_any_document_gives_equal_values_on_all_engines(every_store, document, absent):
    """Every value of any storable document, under every key, two levels deep; absent keys are missing."""
    try:
        stored = json.loads(codec.dumps(document))
    except UnstorableValue:
        return
    paths = [(codec.decode_text(a),) for a in stored]
    paths += [
        (codec.decode_text(a), codec.decode_text(b))
        for a, value in stored.items()
        if isinstance(value, dict)
        for b in value
    ]
    paths.append((absent,))
    requested = list({".".join(path).encode("utf-8", "replace"): ("metadata", *path) for path in paths}.values())
    result = {}
    for engine, store in every_store.items():
        store.save_session(Session(session_id="s", metadata=document))
        result[engine] = store.sessions_df("s", columns=["session_id"], expand=requested)
    for frame_ in result.values():
        pd.testing.assert_frame_equal(frame_, result["duckdb"])
    for path, value in zip(requested, result["duckdb"].iloc[0, 1:].tolist(), strict=True):
        expected = spelled(stored, [codec.encode_text(key) for key in path[1:]])
        assert (value is pd.NA) if expected is None else (value == expected), path


def spelled(value, path: list[str]) -> str | None:
    """Return the documented text of the value at a path."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    if isinstance(value, dict) and set(value) == {"$type", "value"} and isinstance(value["value"], str):
        value = value["value"]
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", codec.decode_text(value))
    if value is None:
        return None
    return re.sub(
        "[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", json.dumps(unescaped(value), ensure_ascii=False)
    )


def unescaped(value):
    """Decode the texts of stored JSON."""
    if isinstance(value, str):
        return codec.decode_text(value)
    if isinstance(value, list):
        return [unescaped(item) for item in value]
    return {unescaped(k): unescaped(v) for k, v in value.items()} if isinstance(value, dict) else value


def test_non_object_documents_have_no_values(store):
    """No metadata, no state, or arguments that are not an object."""
    store.save_session(Session(session_id="s"))
    store.append_run("s", Run(messages=[Message(role="user", content="x")]))

    assert store.messages_df(expand=["metadata.a", "state.a"]).iloc[0, -2:].isna().all()
    assert store.sessions_df(expand=["metadata.a", "state.a.b"]).iloc[0, -2:].isna().all()


def test_invalid_paths_are_refused(store):
    """The error names the available columns, before the engine is queried."""
    cases = [
        ("sessions", ["metdata.x"], "metdata", "'metadata'"),
        ("sessions", ["metadata"], "metadata", "metadata.task_id"),
        ("sessions", ["metadata."], "metadata.", "tuple"),
        ("sessions", ["metadata..x"], "metadata..x", "tuple"),
        ("sessions", [""], "''", "metadata, state"),
        ("sessions", [()], "()", "metadata, state"),
        ("sessions", [("metadata",)], "metadata", "tuple"),
        ("sessions", ("metadata", "x"), "metadata", "tuple"),
        ("sessions", [("metadata", 0)], "0", "tuple"),
        ("sessions", [None], "None", "tuple"),
        ("sessions", ["args.x"], "args", "metadata, state"),
        ("messages", ["content.x"], "content", "metadata, state"),
        ("tool_calls", ["result.x"], "result", "metadata, state, args"),
        ("sessions", ["metadata.a.b", ("metadata", "a.b")], "metadata.a.b", "one at a time"),
    ]
    for name, expand, message, hint in cases:
        with pytest.raises(BadUsage) as error:
            frame(store, name, expand=expand)
        assert message in str(error.value)
        assert hint in error.value.hint


def test_expand_accepts_one_path_or_none(filled):
    """Duplicates are removed."""
    whole = filled.runs_df()
    pd.testing.assert_frame_equal(filled.runs_df(expand=[]), whole)
    assert list(filled.runs_df(columns="run_id", expand="metadata.n")) == ["run_id", "metadata.n"]
    assert list(filled.runs_df(columns="run_id", expand=["metadata.n"] * 2)) == ["run_id", "metadata.n"]
