"""Two versions of a text, word by word."""

from __future__ import annotations

import random

from hostile import HOSTILE
from hypothesis import given
from hypothesis import strategies as st
from markup import Markup

from kern_nb.render.words import LONGEST, in_line, marked, versions


def test_the_words_that_differ_are_marked():
    """In each text those that the other lacks, and no more."""
    a, b = marked("The price is 20 euros today.", "The price is 25 euros.")

    assert a == "The price is <del>20 </del>euros <del>today</del>."
    assert b == "The price is <ins>25 </ins>euros."
    assert in_line("The price is 20 euros.", "The price is 25 euros.") == "The price is [-20-] {+25+} euros."


def test_texts_that_have_little_in_common_are_not_marked():
    """They are two texts, not two versions of one; marks on every other word would say nothing."""
    a, b = marked("I cannot refund a delivered order.", "Yes, your tent arrives on Thursday, before noon!")

    assert "<del>" not in a
    assert "<ins>" not in b


def test_long_texts_are_shown_from_shortly_before_their_first_difference():
    """What is alike before is counted, and so is what follows."""
    a, b = marked("word " * 2_000 + "left" + " end" * 2_000, "word " * 2_000 + "right" + " end" * 2_000)

    assert a.startswith("… 9,840 characters alike … ")
    assert "<del>left </del>" in a
    assert "<ins>right </ins>" in b
    assert a.endswith(" more characters")
    assert len(a) < 2 * LONGEST


@given(st.text(), st.text())
def test_nothing_of_a_text_is_lost(a, b):
    """The pieces of each are its text, whatever is marked."""
    from kern_nb.render.plain import visible

    for text, pieces in zip((a, b), versions(a, b), strict=True):
        assert "".join(piece for _, piece in pieces) == visible(text)


def test_hostile_texts_stay_text():
    """Whatever is compared with whatever."""
    chance = random.Random(3)
    texts = list(HOSTILE.values())
    for text in texts:
        other = chance.choice(texts)
        for markup in marked(text, text + other):
            found = Markup(f"<td>{markup}</td>")
            assert found.problems == []
            assert all(c in "\n\t" or c.isprintable() or c == "\u00a0" for c in found.text)
