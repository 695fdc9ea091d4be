"""Truncated texts stay distinct."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kern_nb.text import formatting
from kern_nb.text.tables import Column, Table

MODEL = "ft:gpt-4.1-2025-04-14:sierra:tau2-full-sft:BzrYdMNm"


def test_difference_at_the_end_shortens_the_middle():
    """Only texts that would look the same are affected."""
    names = [f"{MODEL} / telecom", f"{MODEL} / retail", f"{MODEL[:30]}, which is another one", "gpt-4.1"]

    assert formatting.truncate_distinct(names, 40) == [
        "ft:gpt-4.1-20…ull-sft:BzrYdMNm / telecom",
        "ft:gpt-4.1-20…ull-sft:BzrYdMNm / retail",
        "ft:gpt-4.1-2025-04-14:sierra:t, which i…",
        "gpt-4.1",
    ]


def test_difference_in_the_middle_is_shown():
    """With a few characters before it."""
    a, b = (f"{'same ' * 20}{word}{' and on' * 20}" for word in ("left", "right"))

    assert formatting.truncate_distinct([a, b, a], 24) == [
        "same sam…me left and on…",
        "same sam…me right and o…",
        "same sam…me left and on…",
    ]


@given(st.lists(st.text("ab", max_size=60).map(lambda end: "a" * 30 + end), max_size=8), st.integers(40, 60))
def test_different_texts_stay_distinct(texts, width):
    """For any lengths, within the width."""
    shown = formatting.truncate_distinct(texts, width)

    assert all(len(line) <= width for line in shown)
    assert len(set(shown)) == len(set(texts))


def test_table_keeps_long_names_distinct():
    """In text and in markup, which has the full name as a title."""
    names = [f"{MODEL} / telecom", f"{MODEL} / retail"]
    table = Table("Groups", [Column("group", width=40)], [[name] for name in names])

    assert [line[-9:].strip() for line in str(table).splitlines()[2:]] == ["/ telecom", "/ retail"]
    assert f'<abbr title="{names[0]}">ft:gpt-4.1-20…ull-sft:BzrYdMNm / telecom</abbr>' in table.markup()
