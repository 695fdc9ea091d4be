"""`%%kern_sql`: SQL in the cell, Python's values as parameters, a DataFrame as the value."""

from __future__ import annotations

from decimal import Decimal
from enum import Enum
from pathlib import Path
from uuid import UUID

import numpy as np
import pandas as pd
import pytest

from kern_nb.errors import BadUsage, QueryFailed, QueryRefused
from kern_nb.magics.parser import parameters


class Colour(str, Enum):  # noqa: UP042 - a StrEnum would show nothing
    RED = "red"


def test_the_value_is_a_dataframe(notebook, chats):
    """A SELECT over the views, with or without a semicolon at its end."""
    for end in ("", ";", " ;\n-- it's done\n"):
        df = notebook.run(f"%%kern_sql\nSELECT count(*) AS n FROM messages{end}")
        assert type(df) is pd.DataFrame
        assert df["n"][0] == 16


def test_a_variable_is_a_parameter_and_never_text(notebook, chats):
    """Quotes and SQL in a value change nothing; only the names the query uses are taken."""
    notebook.shell.user_ns.update(who="' OR 1=1 --", chat="alpha", unused=object())

    assert len(notebook.run("%%kern_sql\nSELECT * FROM runs WHERE session_id = $who")) == 0
    df = notebook.run("%%kern_sql\nSELECT '$who' AS quoted, $chat AS chat -- $nothing here\n")
    assert list(df.iloc[0]) == ["$who", "alpha"]


def test_into_assigns_the_frame_and_displays_nothing(notebook, chats):
    """`--into df` sets the variable; there is no value."""
    assert notebook.run("%%kern_sql --into df\nSELECT 1 AS one") is None
    assert notebook.shell.user_ns["df"]["one"][0] == 1
    assert notebook.run("%kern_sql --into=other --store=chats SELECT 2 AS two") is None
    assert notebook.shell.user_ns["other"]["two"][0] == 2


def test_a_line_can_be_assigned(notebook, chats):
    """`df = %kern_sql SELECT ...`, with SQL's own comments and quotes."""
    notebook.run("chat = 'alpha'")
    notebook.run("df = %kern_sql SELECT 'it''s' AS text, $chat AS chat -- comment")

    assert list(notebook.shell.user_ns["df"].iloc[0]) == ["it's", "alpha"]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("%%kern_sql", "no SQL"),
        ("%%kern_sql --into df\n", "no SQL"),
        ("%%kern_sql\n\n  \n", "no SQL"),
        ("%kern_sql", "no SQL"),
        ("%%kern_sql --into 1x\nSELECT 1", "must be a variable name"),
        ("%%kern_sql --itno df\nSELECT 1", "--itno"),
        ("%%kern_sql extra\nSELECT 1", "extra"),
        ("%%kern_sql\nSELECT $nobody", "nobody"),
        ("%%kern_sql\nSELECT $frame", "$frame must be a text, number or time, got DataFrame"),
        ("%%kern_sql\nSELECT $things", "$things must be a text, number or time, got object"),
    ],
)
def test_an_invalid_line_or_variable_shows_two_lines(notebook, cell, message):
    """No SQL, a wrong option, no such variable, a value that is none: the store is not even asked."""
    notebook.run("%kern attach s.duckdb")
    notebook.shell.user_ns.update(frame=pd.DataFrame({"a": [1]}), things=object())

    error, lines = notebook.fails(cell)

    assert type(error) is BadUsage
    assert message in str(error)
    assert len(lines) == 2
    assert lines[1].startswith("Hint: ")


def test_sql_that_fails_or_writes_shows_two_lines(notebook, chats):
    """On every engine: the engine's own words, or the refusal; and nothing has changed."""
    before = chats.sessions_df()

    for sql, kinds in (
        ("SELEC 1", (QueryFailed, QueryRefused)),
        ("SELECT nothing FROM runs", (QueryFailed,)),
        ("DELETE FROM agno_sessions", (QueryRefused,)),
        ("WITH x AS (SELECT 1) DELETE FROM agno_sessions", (QueryFailed, QueryRefused)),
        ("SELECT 1; DROP TABLE agno_sessions", (QueryFailed, QueryRefused)),
    ):
        error, lines = notebook.fails(f"%%kern_sql\n{sql}")
        assert type(error) in kinds
        assert len(lines) == 2
        assert lines[1].startswith("Hint: ")

    pd.testing.assert_frame_equal(chats.sessions_df(), before)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ("text", "text"),
        (1.5, 1.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (pd.Timestamp("2026-11-20", tz="UTC"), pd.Timestamp("2026-11-20", tz="UTC")),
        (Decimal("1.5"), 1.5),
        (UUID(int=1), str(UUID(int=1))),
        (Path("a/b"), "a/b"),
        (Colour.RED, "red"),
    ],
)
def test_values_of_a_frame_can_be_parameters(notebook, value, plain):
    """Values of pandas, numpy and the standard library arrive as what they stand for."""
    notebook.run("%kern attach :memory:")
    notebook.shell.user_ns["x"] = value

    assert notebook.run("%kern_sql SELECT $x AS x")["x"][0] == plain


@pytest.mark.parametrize("value", [None, pd.NA, pd.NaT])
def test_missing_values_become_null(notebook, value):
    """Not 0, not the text of it."""
    notebook.run("%kern attach :memory:")
    notebook.shell.user_ns["x"] = value

    assert notebook.run("%kern_sql SELECT $x AS x")["x"].isna()[0]


@pytest.mark.parametrize("value", [pd.DataFrame(), pd.Series([1]), np.array([1, 2]), {"a": 1}, object(), ["a"], len])
def test_an_unsupported_parameter_is_refused_by_name(notebook, value):
    """The error names the variable and its type."""
    notebook.run("%kern attach :memory:")
    notebook.shell.user_ns["x"] = value

    error, lines = notebook.fails("%kern_sql SELECT $x AS x")

    assert type(error) is BadUsage
    assert f"$x must be a text, number or time, got {type(value).__name__}" in str(error)
    assert len(lines) == 2


def test_a_missing_variable_suggests_one():
    """Spelt like one there is, it is named."""
    with pytest.raises(BadUsage, match="'mdoel'") as caught:
        parameters("SELECT $mdoel", {"model": 1, "_mdoel": 2})
    assert caught.value.hint == "Did you mean 'model'?"
