"""Digests and summaries have the same content as plain text and as markup without styles."""

from __future__ import annotations

import hostile_digests
import pytest
from hostile_digests import empty_digest, hostile_digest, summaries, summary
from markup import Markup

RESULTS = {
    "one": hostile_digest,
    "many": lambda: hostile_digest(several=True),
    "fitting": lambda: hostile_digest(several="fitting"),
    "empty": empty_digest,
    "summary": summary,
    "summaries": summaries,
}


def shown(result):
    """What a reader of the markup sees, whatever becomes of the styles."""
    return Markup(result._repr_html_()).text


@pytest.mark.parametrize("name", RESULTS)
def test_text_escapes_control_characters(name):
    """No NUL, escape or override reaches a terminal, and lines are limited."""
    lines = repr(RESULTS[name]()).splitlines()

    assert lines
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 800


@pytest.mark.parametrize("name", RESULTS)
def test_long_texts_are_truncated(name):
    """A store may contain a megabyte in any cell."""
    assert len(RESULTS[name]()._repr_html_()) < 60_000


def test_every_metric_has_a_name_and_every_table_a_caption():
    """Without styles each number is still labelled."""
    text = shown(hostile_digest(several=True))
    for caption in ("Status", "Totals", "Tools", "Longest steps", "Outliers", "Items"):
        assert caption in text
    markup = hostile_digest(several=True)._repr_html_()
    assert markup.count("<table") == markup.count("<caption") == markup.count("<thead")
    assert '<th scope="col"' in markup


def test_failures_have_a_sign():
    """Errors, failed calls and calls with an unknown outcome do not rely on colour."""
    text = shown(hostile_digest())
    for sign in ("✗ ERROR", "✗ error", "✗ 2", "? 2", "✗ failed"):
        assert sign in text
        assert sign in repr(hostile_digest())


def test_omissions_are_stated():
    """User calls, nested items, unreadable sessions and omitted rows are counted."""
    for text in (shown(hostile_digest(several=True)), repr(hostile_digest(several=True))):
        assert "2 tool calls of a simulated user not counted" in text
        assert "1 item contained in another: counted once" in text
        assert "1 session could not be read" in text
        assert "4 more; see .items" in text


def test_summary_states_what_it_covers():
    """The last run, newer runs, whether it is stored, when and by which model it was written."""
    for text in (shown(summaries()), repr(summary(runs_since=0)) + repr(summary(run_index=2)) + repr(summaries())):
        assert "not stored" in text
        assert "No runs to summarize" in text
    assert "Up to run 7, up to date, written 2026-11-20 19:00 UTC, by " in repr(summary(runs_since=0))
    assert "Up to run 7, 2 newer runs" in repr(summary(runs_since=2))
    assert "This run only, not stored" in repr(summary(run_index=2))
    assert set(hostile_digests.CASES) >= {"summary", "summaries"}
