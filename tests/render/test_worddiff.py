"""Word differences of two versions of a text."""

from __future__ import annotations

import random
import re
import time
import unicodedata

import pytest
from hostile import HOSTILE
from hypothesis import given
from hypothesis import strategies as st
from markup import Markup

from kern_nb.text.worddiff import MAX_LENGTH, diff, diff_lines, diff_markup, diff_raw, inline_diff


def test_differing_words_are_marked():
    """Exactly the words that the other text lacks are marked."""
    a, b = diff_markup("The price is 20 euros today.", "The price is 25 euros.")

    assert a == "The price is <del>20 </del>euros <del>today</del>."
    assert b == "The price is <ins>25 </ins>euros."
    assert inline_diff("The price is 20 euros.", "The price is 25 euros.") == "The price is [-20-] {+25+} euros."


def test_dissimilar_texts_are_not_marked():
    """They are not two versions of one text."""
    a, b = diff_markup("I cannot refund a delivered order.", "Yes, your tent arrives on Thursday, before noon!")

    assert "<del>" not in a
    assert "<ins>" not in b


def test_long_texts_start_before_their_first_difference():
    """Identical characters before it and omitted ones behind are counted."""
    a, b = diff_markup("word " * 2_000 + "left" + " end" * 2_000, "word " * 2_000 + "right" + " end" * 2_000)

    assert a.startswith("… 9,840 identical characters … ")
    assert "<del>left </del>" in a
    assert "<ins>right </ins>" in b
    assert a.endswith(" more characters")
    assert len(a) < 2 * MAX_LENGTH


@given(st.text(), st.text())
def test_diff_loses_nothing(a, b):
    """The pieces of each side add up to its text."""
    from kern_nb.text.formatting import escape_controls

    for text, pieces in zip((a, b), diff_raw(a, b), strict=True):
        assert "".join(piece for _, piece in pieces).replace("\u240d\n", "\n") == escape_controls(text)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("x  y z", "x y z"),
        ("yes", "yes "),
        ("yes", "yes\n"),
        ("a\tb", "a b"),
        ("a\u00a0b", "a b"),
        ("line\nline", "line\r\nline"),
        ("caf\u00e9", "cafe\u0301"),
        ("\u212b", "\u00c5"),
        ("", "\u200b"),
        ("zero width", "zero\u200bwidth"),
        ("yes", "yes\ufe0f"),
        ("soft\u00adhyphen", "softhyphen"),
    ],
)
def test_invisible_differences_are_spelled_out(a, b):
    """Differences in spaces, line ends, accents and invisible characters are visible in every form."""

    def seen(text: str) -> str:
        inked = unicodedata.normalize("NFC", re.sub("<[^>]*>", " ", text))
        return " ".join("".join(c for c in inked if unicodedata.category(c) not in ("Cf", "Mn")).split())

    for x, y in (diff_lines(a, b, 150), diff_markup(a, b)):
        assert seen(x) != seen(y)
    assert re.search(r"\[-.+-\]|\{\+.+\+\}", inline_diff(a, b, 150))
    assert ["".join(text for _, text in pieces) for pieces in diff("a b", "a  c")] == ["a b", "a  c"]


def test_line_shows_the_difference_anywhere():
    """Even far behind the width of the line; dissimilar texts are both shown."""
    for alike in (0, 100, 200, 300, 5_000):
        text = ("one moment please " * 300)[:alike]
        a, b = text + "You owe 20 euros." + " bye" * 90, text + "You owe 25 euros." + " bye" * 90
        line = inline_diff(a, b, 150)
        assert "[-20-] {+25+}" in line
        assert len(line) <= 150
        for side, amount in zip(diff_lines(a, b, 150), ("20", "25"), strict=True):
            assert f"You owe {amount} euros" in side
            assert len(side) <= 150
    assert inline_diff("hello", "good bye now") == "[-hello-] {+good bye now+}"
    assert inline_diff("hello", "") == "[-hello-]"
    assert inline_diff('f({"x":1})', 'f({"x":"1"})') == 'f({"x":{+"+}1{+"+}})'


def test_hostile_texts_are_escaped():
    """In every form of the difference."""
    chance = random.Random(3)
    texts = list(HOSTILE.values())
    for text in texts:
        other = chance.choice(texts)
        for markup in diff_markup(text, text + other):
            found = Markup(f"<td>{markup}</td>")
            assert found.problems == []
            assert all(c in "\n\t" or c.isprintable() or c == "\u00a0" for c in found.text)


def test_repetitive_texts_are_compared_quickly():
    """Rulers and tables repeat one character."""
    begun = time.thread_time()
    for a, b in (
        ("...." * 1_000, "x" + "..,." * 1_000),
        ("|---" * 1_000, "|--|" * 1_000),
        ("a b " * 1_000, "b " * 2_000),
    ):
        diff(a, b)

    assert time.thread_time() - begun < 2
