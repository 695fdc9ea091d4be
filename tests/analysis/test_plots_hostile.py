"""Text from a store in a plot: shown, never read as a field, an expression, markup or a script."""

from __future__ import annotations

import json
import re

import pytest
from plot_inputs import calls, metrics, runs, sessions, values

from kern_nb.analysis import plots

TEXTS = {
    "script": "</script><script>window.hacked = 1</script><img src=x onerror=alert(1)>",
    "expression": "datum.x[0].y + warn('x') + {signal: 'width'}",
    "field": "a.b[0]\\.c['d']",
    "interpolation": "${alert(1)} {{x}} %(x)s #{x}",
    "nul": "be\x00fore \x1b[31mred \x7f",
    "override": "user\u202egnp.exe\u202c \u2067isolated\u2069",
    "separators": "line\u2028paragraph\u2029 two\nlines\ttab",
    "quotes": "\"double\" 'single' `back` \\ &amp;",
    "megabyte": "<&>" * 350_000,
    "nothing": "",
    "link": "https://example.com/x.png",
    "null": "null",
    "proto": "__proto__",
}


def drawn_with(text: str) -> list[plots.Plot]:
    """A plot of each kind, with a text wherever a store's can come."""
    return [
        plots.over_runs(runs(*({"session_id": s, "run_index": i, "cost": 1.0} for s in (text, "b") for i in range(2)))),
        plots.over_runs(runs(*({"session_id": s, "cost": 1.0} for s in (text, "b")))),
        plots.tool_use(calls((text, False), (text, True), ("b", None))),
        plots.comparison(
            metrics(
                {"metric": text, "a": 1, "b": 2, "better": text, "contender": text},
                {"metric": f"{text}0", "a": 0, "b": 2, "contender": text},
            )
        ),
        plots.groups(
            metrics({"metric": text, "n_pairs": 3, "a": 1, "b": 2, "low": 0, "high": 2, "better": text, "group": text})
        ),
        plots.branch_tree(
            sessions(
                {"session_id": text, "session_name": text, "status": text},
                {"session_id": "b", "session_name": text, "parent_session_id": text, "fork_run_index": 0},
            )
        ),
    ]


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_texts_are_data_values(name):
    """Each is cut and visible, under names of ours, and the specification is as small as of any other."""
    for plot in drawn_with(TEXTS[name]):
        spec = json.dumps(plot.spec)
        assert len(spec) < 40_000
        assert all(
            character.isprintable()
            for row in values(plot)
            for v in row.values()
            if isinstance(v, str)
            for character in v
        )
        assert {key for row in values(plot) for key in row} <= set("abdghklmnopstvxy") | {
            "id",
            "tokens",
            "cost",
            "seconds",
        }
        assert len(json.dumps(plot._vega)) < 60_000
        assert len(repr(plot)) < 5_000


@pytest.mark.parametrize("name", ["script", "separators", "megabyte"])
def test_any_text_can_be_drawn(name):
    """What a notebook keeps is as small as of any other."""
    for plot in drawn_with(TEXTS[name]):
        data, metadata = plot._repr_mimebundle_()
        assert len(data["image/png"]) < 150_000
        assert len(metadata["image/png"]["alt"]) < 500


@pytest.mark.parametrize("name", TEXTS)
def test_hostile_texts_are_not_in_expressions(name):
    """What Vega evaluates is the same, whatever the names are."""

    def evaluated(plot):
        found = re.findall(r'"(?:signal|expr|test|update)": ("(?:[^"\\]|\\.)*")', json.dumps(plot._vega))
        return sorted(set(found))

    for plot, harmless in zip(drawn_with(TEXTS[name]), drawn_with("a"), strict=True):
        assert evaluated(plot) == evaluated(harmless)
        assert evaluated(plot)


def test_page_has_only_its_own_scripts(tmp_path):
    """A name cannot end the script that it stands in; the drawing has it as text."""
    for number, (plot, harmless) in enumerate(zip(drawn_with(TEXTS["script"]), drawn_with("a"), strict=True)):
        page = plot.save(tmp_path / f"{number}.html").read_text()
        other = harmless.save(tmp_path / f"{number}-harmless.html").read_text()
        drawing = plot.save(tmp_path / f"{number}.svg").read_text()

        assert page.count("<script") == other.count("<script")
        assert page.count("</script") == other.count("</script")
        assert "\\u003cscript\\u003e" in page
        assert "<script" not in drawing
        assert "&lt;script&gt;" in drawing
