"""A comparison of groups has the same content as plain text and as markup, with hostile names, too."""

from __future__ import annotations

import pytest
from hostile_groups import hostile_groups, many
from markup import Markup

from kern_nb.analysis.groups import compare_groups
from kern_nb.db import InMemoryDb
from kern_nb.records import Run, Session
from kern_nb.text.metrics import format_delta


@pytest.mark.parametrize("contenders", [1, 2])
def test_hostile_names_are_escaped_and_truncated(contenders):
    """Controls are escaped and lines limited; the frames have the original names."""
    found = hostile_groups(contenders=contenders)
    text = repr(found)

    assert all(c == "\n" or c.isprintable() or c == "\u00a0" for c in text)
    assert max(map(len, text.splitlines())) < 400
    assert len(text) < 20_000
    if contenders == 1:
        assert len(found.contenders[0]) == 1_000_000


@pytest.mark.parametrize("made", [hostile_groups, many])
def test_text_and_markup_have_the_same_content(made):
    """Every number of the text is in the markup without styles."""
    found = made()
    text, markup = repr(found), Markup(found._repr_html_())

    for sign in ("(baseline)", "Δ", "95% interval", "✓ Better", "no clear difference", "…"):
        assert sign in text or made is many, sign
        assert (sign in text) == (sign in markup.text), sign
    for row in found.metrics.astype(object).where(found.metrics.notna(), None).itertuples():
        kind = "score" if row.metric == found.score else row.metric
        assert format_delta(kind, row.delta) in text
        assert format_delta(kind, row.delta) in markup.text


def test_long_lists_are_truncated_with_a_note():
    """Twenty keys are shown; the note counts the others and names the frame."""
    found = many()

    assert len(found.better) == 25
    for shown in (repr(found), found._repr_html_()):
        assert "… 5 more; see .better." in shown
        assert "Not selected: 30 sessions of else." in shown


def test_few_pairs_show_a_warning():
    """Three pairs show it, a hundred do not."""
    with InMemoryDb() as store:
        for n in range(6):
            made = Session(
                session_id=f"s{n}", agent_id="ab"[n % 2], metadata={"task": n // 2}, runs=[Run(run_id=f"r{n}")]
            )
            store.save_session(made)
            store.add_score(f"s{n}", "reward", n)
        found = compare_groups(store, by="agent_id", key="task")

    assert "With only 3 keys, intervals are too narrow." in repr(found)
    assert "too narrow" not in repr(many())
