"""sql(): six views with the columns of the frames on every engine, bound parameters, and any text in a query."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from samples import SPECIAL, WHEN, a_run, a_session, a_small_run

from kern_nb.db.columns import FRAMES
from kern_nb.errors import BadUsage, QueryFailed
from kern_nb.records import Message, Run, Session, ToolCall


@pytest.fixture
def filled(store):
    """A session of three runs with all kinds of rows, and a branch."""
    a_session(store, "chat", user_id="u", created_at=WHEN)
    store.add_score("chat", "reward", 0.5)
    store.save_session(Session(session_id="chat", metadata={"task": "t'1", "n": 1}, created_at=60))
    store.branch("chat", after=0, new_session_id="branch")
    return store


@pytest.mark.parametrize("name", list(FRAMES))
def test_view_has_columns_of_its_frame(store, name):
    """In order; before the first write, with empty tables and with rows."""
    expected = [column.name for column in FRAMES[name]]
    assert store.sql(f"SELECT * FROM {name}").columns.tolist() == expected
    a_session(store, "chat", runs=1)
    assert store.sql(f"SELECT * FROM {name}").columns.tolist() == expected
    store.delete_session("chat")
    result = store.sql(f"SELECT * FROM {name}")
    assert result.columns.tolist() == expected
    assert len(result) == 0


@pytest.mark.parametrize("name", ["sessions", "runs", "messages", "tool_calls", "scores"])
def test_views_equal_frames(filled, engine_name, name):
    """The values in SQL are those of the frames."""
    frame = getattr(filled, f"{name}_df")()
    key = [c for c in ("session_id", "run_index", "message_index", "tool_call_id", "name") if c in frame.columns]
    result = filled.sql(f"SELECT * FROM {name} ORDER BY {', '.join(key)}")
    frame = frame.sort_values(key, ignore_index=True)
    for column in FRAMES[name]:
        ours, theirs = result[column.name], frame[column.name]
        assert ours.isna().tolist() == theirs.isna().tolist(), column.name
        if column.kind == "time":
            ours = pd.to_datetime(ours, utc=True, format="ISO8601").astype(theirs.dtype)
        if column.kind == "json":
            assert [v and pd.io.json.ujson_loads(v) for v in ours.dropna()] == [
                v and pd.io.json.ujson_loads(v) for v in theirs.dropna()
            ]
            continue
        assert ours.dropna().tolist() == theirs.dropna().tolist(), column.name


def test_times_are_timestamps(filled, engine_name):
    """UTC timestamps; in SQLite, ISO text that sorts and compares like times."""
    result = filled.sql("SELECT created_at FROM runs ORDER BY run_index LIMIT 1").created_at
    if engine_name == "sqlite":
        assert result.tolist() == ["2026-03-01 12:00:00.123456"]
        since = filled.sql("SELECT count(*) AS n FROM runs WHERE created_at >= '2026-03-01 12:00:00.123456'")
    else:
        assert str(result.dtype) == "datetime64[us, UTC]"
        assert result.tolist() == [WHEN]
        since = filled.sql("SELECT count(*) AS n FROM runs WHERE created_at >= $when", {"when": WHEN})
    assert since.n.tolist() == [3]
    assert filled.sql("SELECT count(*) AS n FROM runs WHERE created_at < '2026-03-01 12:00:00'").n.tolist() == [0]


def test_times_before_1970_are_timestamps(store):
    """To the microsecond."""
    when = datetime(1969, 12, 31, 23, 59, 59, 250_000, tzinfo=UTC)
    store.append_run("s", Run(created_at=when))
    result = store.sql("SELECT created_at FROM runs").created_at

    assert pd.to_datetime(result, utc=True).tolist() == [when]


def test_parameters_are_bound_as_values(filled):
    """No character in a text ends a string or formats one."""
    filled.rename_session("branch", "named")
    for i, text in enumerate(SPECIAL):
        filled.append_run("texts", Run(input=text, agent_id=f"{i}"))
        result = filled.sql("SELECT agent_id FROM runs WHERE session_id = 'texts' AND input = $text", {"text": text})

        assert result.agent_id.tolist() == [f"{i}"], text
    for text in ("' OR 1=1 --", "texts' --", "%", "_", "$text", "{text}", ":text", "?", "\\"):
        assert len(filled.sql("SELECT * FROM runs WHERE session_id = $text", {"text": text})) == 0


def test_parameters_accept_plain_types(filled):
    """Numbers, flags, pandas and numpy values; None is NULL; unused parameters are ignored."""
    for value in (1, np.int64(1), 1.0, np.float64(1.0), Decimal(1), pd.Series([1], dtype="Int64")[0]):
        result = filled.sql("SELECT run_index FROM runs WHERE run_index = $n AND session_id = 'chat'", {"n": value})
        assert result.run_index.tolist() == [1], repr(value)
    assert len(filled.sql("SELECT * FROM runs WHERE session_id = $id", {"id": np.str_("chat")})) == 3
    assert len(filled.sql("SELECT * FROM sessions WHERE session_id = $id", {"id": None})) == 0
    assert len(filled.sql("SELECT * FROM sessions", {"unused": 1, "also": "x"})) == 2
    both = "SELECT * FROM runs WHERE session_id = $a AND run_index >= $b AND $a = session_id AND run_index < $b + 1"
    assert filled.sql(both, {"a": "chat", "b": 1, "unused": object}).run_index.tolist() == [1]
    assert filled.sql("SELECT $text AS text, $n + 1 AS n", {"text": "a'b", "n": 2}).iloc[0].tolist() == ["a'b", 3]


@pytest.mark.parametrize(
    "make", [list, tuple, set, frozenset, pd.Series, pd.Index, np.array, lambda ids: pd.Series(ids, dtype="string")]
)
@pytest.mark.parametrize("operator", ["IN $ids", "IN ($ids)", "in(\n$ids )", "NOT IN $ids", "not  in ($ids)"])
def test_a_list_is_a_parameter_of_in(store, make, operator):
    """With or without brackets; its values are bound as values, whatever they contain."""
    ids = ["a", "b'--", "$c"]
    for session_id in (*ids, "d", "e"):
        store.append_run(session_id, Run(input="q"))
    query = f"SELECT session_id FROM runs WHERE session_id {operator} AND status = $status ORDER BY 1"
    result = store.sql(query, {"ids": make([*ids, "unknown"]), "status": "COMPLETED", "ids_0": "d"})

    assert result["session_id"].tolist() == (["d", "e"] if "not" in operator.lower() else sorted(ids))


def test_lists_of_numbers_and_times(filled):
    """A list is bound like its values; missing ones are NULL."""
    assert len(filled.sql("SELECT * FROM runs WHERE run_index IN $n", {"n": np.array([0, 2])})) == 2
    assert len(filled.sql("SELECT * FROM runs WHERE run_index IN $n", {"n": pd.Series([0, None], dtype="Int64")})) == 1
    assert filled.sql("SELECT 1 AS x WHERE 2 IN $n AND 3 IN $n", {"n": (2, 3)})["x"].tolist() == [1]


@pytest.mark.parametrize("column", ["session_id", "run_index", "cost", "created_at"])
def test_an_empty_list_has_no_rows(filled, column):
    """Nothing is in it, and everything is not in it, whatever the type of the column."""
    total = filled.sql("SELECT count(*) AS n FROM runs")["n"][0]
    for empty in ([], pd.Series([], dtype="object"), np.array([])):
        for brackets in ("$ids", "( $ids )"):
            inside = filled.sql(f"SELECT * FROM runs WHERE {column} IN {brackets}", {"ids": empty})
            outside = filled.sql(f"SELECT * FROM runs WHERE {column} NOT IN {brackets}", {"ids": empty})
            assert (len(inside), len(outside)) == (0, total)


def test_a_list_elsewhere_is_refused(filled):
    """So are one that is too long, and one of other things than values."""
    for query in ("= $ids", "IN ($ids, 'x')", "IN ('x', $ids)", "IN (SELECT $ids)", "= ANY($ids)"):
        with pytest.raises(BadUsage, match=r"\$ids must be a text, number or time, got list") as caught:
            filled.sql(f"SELECT * FROM runs WHERE session_id {query}", {"ids": ["chat"]})
        assert "IN $ids" in caught.value.hint
    with pytest.raises(BadUsage, match="30,001 values"):
        filled.sql("SELECT 1 WHERE 1 IN $ids", {"ids": list(range(30_001))})
    with pytest.raises(BadUsage, match="must be a text, number or time, got list"):
        filled.sql("SELECT 1 WHERE 1 IN $ids", {"ids": [[1]]})


def test_a_long_list(filled):
    """Thousands of ids of a DataFrame."""
    ids = [*map(str, range(20_000)), "chat"]

    assert len(filled.sql("SELECT * FROM sessions WHERE session_id IN $ids", {"ids": ids})) == 1


def test_parameter_without_value_is_reported(filled):
    """The error has its name."""
    with pytest.raises(QueryFailed, match="nothing_here"):
        filled.sql("SELECT * FROM sessions WHERE session_id = $nothing_here")
    with pytest.raises(QueryFailed, match="nothing_here"):
        filled.sql("SELECT * FROM sessions WHERE session_id = $nothing_here", {"other": 1})


def test_sql_text_is_unchanged(filled):
    """%, :name, {}, $name in strings, backslashes, comments with quotes: nothing formats the text."""
    result = filled.sql(
        """SELECT '%' AS a, '%s %(x)s %%' AS b, ':name' AS c, '{} {x}' AS d, '$name' AS e, 'it''s' AS f, '?' AS g,
           10 % 3 AS h, '\\' AS i, '-- no comment' AS j, '/* none */' AS k, '; ' AS l -- a comment with ' and $name and ;
           FROM sessions WHERE session_id LIKE '%ha%' /* another ; with ' and $name */"""
    )
    assert result.iloc[0].tolist() == [
        *("%", "%s %(x)s %%", ":name", "{} {x}", "$name", "it's", "?"),
        *(1, "\\", "-- no comment", "/* none */", "; "),
    ]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT n_runs FROM sessions WHERE session_id = 'chat';",
        "SELECT n_runs FROM sessions WHERE session_id = 'chat' ;  \n ; ",
        "SELECT n_runs FROM sessions WHERE session_id = 'chat' -- the end",
        "SELECT n_runs FROM sessions WHERE session_id = 'chat'; -- the end",
        "SELECT n_runs FROM sessions WHERE session_id = 'chat' /* the end */",
        "/* the start; */ SELECT n_runs FROM sessions WHERE session_id = 'chat'; /* the end */",
        "-- the start\n\nSELECT n_runs\nFROM sessions\nWHERE session_id = 'chat'\n",
        "WITH c AS (SELECT * FROM sessions WHERE session_id = 'chat') SELECT n_runs FROM c",
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3) SELECT max(n) AS n_runs FROM c",
        "SELECT n_runs FROM (SELECT * FROM sessions ORDER BY n_runs DESC) AS s LIMIT 1",
        "SELECT count(*) AS n_runs FROM runs UNION ALL SELECT 7 ORDER BY 1 LIMIT 1",
        "select n_runs from sessions where session_id = 'chat'",
        "SELECT max(n_runs) AS n_runs FROM sessions GROUP BY session_id HAVING session_id = 'chat'",
        "(SELECT n_runs FROM sessions WHERE session_id = 'chat')",
    ],
)
def test_all_forms_of_queries_run(store_factory, engine_name, query):
    """WITH, ORDER BY, UNION, comments and semicolons at the end."""
    if query.startswith("(") and engine_name == "sqlite":
        query = query[1:-1]  # SQLite takes no parentheses around a whole query
    store = store_factory()
    a_session(store, "chat")
    result = store.sql(query)

    assert result.n_runs.tolist() == [3]
    assert str(result.n_runs.dtype) == "Int64"


def test_order_by_is_kept(filled):
    """Of the outermost query."""
    result = filled.sql("SELECT run_index, message_index FROM messages ORDER BY message_index DESC, run_index")
    assert result.message_index.tolist() == [3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0]
    assert result.run_index.tolist() == [0, 1, 2] * 4


def test_columns_of_same_name_are_kept(filled):
    """They get different names in the DataFrame."""
    result = filled.sql("SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS b")

    assert result.shape == (1, 4)
    assert result.columns.is_unique
    assert result.iloc[0].tolist() == [1, 2, 3, 4]
    joined = filled.sql("SELECT * FROM sessions s JOIN runs r ON s.session_id = r.session_id")
    assert joined.shape == (3, len(FRAMES["sessions"]) + len(FRAMES["runs"]))


def test_results_have_nullable_dtypes(filled):
    """Counts stay integers beside NULL, text is text, no column has dtype object."""
    result = filled.sql(
        "SELECT run_index, CASE WHEN run_index = 0 THEN NULL ELSE run_index END AS some, input, 1.5 AS f FROM runs ORDER BY 1"
    )
    assert result.some.isna().tolist() == [True, False, False]
    assert {c: str(d) for c, d in result.dtypes.items()} == {
        "run_index": "Int64",
        "some": "Int64",
        "input": "string",
        "f": "Float64",
    }
    sums = filled.sql("SELECT sum(input_tokens) AS s, avg(input_tokens) AS a, count(*) AS n FROM runs")
    assert sums.iloc[0].tolist() == [90, 30.0, 3]


def test_texts_round_trip(store):
    """NUL included, independent of its encoding in the engine."""
    texts = [text for text in SPECIAL if not any("\ud800" <= c <= "\udfff" for c in text)]
    for text in texts:
        store.append_run("s", Run(input=text, messages=[Message(role="user", content=text)]))

    assert store.sql("SELECT input FROM runs ORDER BY run_index").input.tolist() == texts
    assert store.sql("SELECT content FROM messages ORDER BY run_index").content.tolist() == texts


def test_json_is_queried_with_engine_functions(filled, engine_name):
    """metadata and args are JSON in the engine."""
    store = filled
    column = "CAST(metadata AS JSON)" if engine_name in ("duckdb", "memory") else "metadata"
    result = store.sql(f"SELECT {column} ->> 'task' AS task FROM sessions WHERE session_id = 'chat'")
    assert result.task.tolist() == ["t'1"]
    store.append_run("t", Run(tool_calls=[ToolCall(tool_call_id="c", args={"q": "\x00 é", "n": [1]})]))
    column = column.replace("metadata", "args")
    result = store.sql(f"SELECT tool_call_id FROM tool_calls WHERE {column} ->> 'q' IS NOT NULL AND session_id = 't'")
    assert result.tool_call_id.tolist() == ["c"]


def test_sql_error_is_the_engines_message(filled):
    """The unknown column or table is named; the store stays usable."""
    for query in ("SELECT no_such_column FROM sessions", "SELECT * FROM no_such_column", "SELECT no_such_column("):
        with pytest.raises(QueryFailed) as caught:
            filled.sql(query)
        assert "no_such_column" in str(caught.value) or query.endswith("(")
        assert len(str(caught.value).strip()) > 10
    filled.append_run("chat", a_small_run())
    assert filled.sql("SELECT n_runs FROM sessions WHERE session_id = 'chat'").n_runs.tolist() == [4]


def test_sql_sees_latest_write(filled):
    """Alternating reads and writes."""
    for i in range(3):
        assert filled.sql("SELECT count(*) AS n FROM runs").n.tolist() == [3 + i]
        filled.append_run("chat", a_run())
