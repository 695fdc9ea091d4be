"""What hosts are given to show, what is saved, and what happens where the extra is not installed."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys

import nbformat
import pytest
from plot_inputs import calls, fill_store, metrics, runs, sessions

from kern_nb.analysis import plots
from kern_nb.db import InMemoryDb
from kern_nb.errors import BadUsage
from kern_nb.records import Run

VEGA = "application/vnd.vega.v5+json"

MADE = {
    "runs": plots.over_runs(runs({"total_tokens": 5}, {"run_index": 1, "total_tokens": 7, "cost": 0.1})),
    "side by side": plots.over_runs(runs({"cost": 0.2}, {"session_id": "other", "cost": 0.1})),
    "tools": plots.tool_use(calls(("a", False), ("b", True))),
    "comparison": plots.comparison(metrics({"metric": "cost", "a": 1, "b": 2, "better": "a"})),
    "groups": plots.groups(
        metrics({"metric": "cost", "n_pairs": 2, "a": 1, "b": 2, "low": 0, "high": 2, "better": "neither"})
    ),
    "tree": plots.branch_tree(
        sessions({"session_id": "a"}, {"session_id": "b", "parent_session_id": "a", "fork_run_index": 0})
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_notebook_stores_chart_image_and_text(name):
    """Vega 5 for JupyterLab, a PNG for every other host, a table for a terminal; no HTML, which would go before them."""
    data, metadata = MADE[name]._repr_mimebundle_()

    assert set(data) == {VEGA, "image/png", "text/plain"}
    assert data[VEGA]["$schema"] == "https://vega.github.io/schema/vega/v5.json"
    assert base64.b64decode(data["image/png"]).startswith(b"\x89PNG\r\n\x1a\n")
    assert len(data["image/png"]) < 150_000
    assert metadata["image/png"]["width"] in range(200, 900)
    assert metadata["image/png"]["alt"].startswith(MADE[name].title)
    assert data["text/plain"].startswith(MADE[name].table.caption)
    json.dumps(data)


@pytest.mark.parametrize("name", MADE)
def test_chart_is_valid_for_altair(name):
    """The specification follows Vega-Lite's schema, so the chart can be changed and combined."""
    chart = MADE[name].chart

    assert chart.to_dict()["title"]["text"] == MADE[name].title
    assert MADE[name].spec["data" if name in ("runs", "side by side") else "config"]


@pytest.mark.parametrize("name", MADE)
def test_chart_loads_nothing(name):
    """No data, picture or link comes from an address; schemas are names, not addresses."""
    for spec in (MADE[name].spec, MADE[name]._repr_mimebundle_()[0][VEGA]):
        found = re.findall(r"\"[^\"]*://[^\"]*\"", json.dumps(spec))
        assert len(found) == 1
        assert found[0].startswith('"https://vega.github.io/schema/')
        assert not re.search(r'"(url|href)"', json.dumps(spec))


def test_saved_files_need_no_network(tmp_path):
    """A picture, a drawing, a page with its scripts in it, and the specification."""
    plot = MADE["tree"]

    assert plot.save(tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    assert plot.save(str(tmp_path / "p.SVG")).read_text().startswith("<svg")
    assert json.loads(plot.save(tmp_path / "p.json").read_text()) == plot.spec
    page = plot.save(tmp_path / "p.html").read_text()
    assert not re.search(r"<(script|link)\b[^>]*(src|href)=|@import|cdn", page)
    assert "vegaEmbed(" in page
    assert plot.title in page


def test_unknown_file_format_raises(tmp_path):
    """The hint names the kinds there are; nothing is written."""
    with pytest.raises(BadUsage, match=r"'plot\.pdf'") as refused:
        MADE["runs"].save(tmp_path / "plot.pdf")

    assert refused.value.hint == "Use a name that ends in .png, .svg, .html, .json."
    assert list(tmp_path.iterdir()) == []


WITHOUT = """
import sys
for name in ("altair", "vl_convert"):
    sys.modules[name] = None
import pandas as pd
from kern_nb.analysis import plots
from kern_nb.errors import KernError

calls = pd.DataFrame({"tool_name": ["<b>find</b>", "find"], "is_error": [True, False]})
plot = plots.tool_use(calls)
data, metadata = plot._repr_mimebundle_()
assert set(data) == {"text/plain", "text/html"} and metadata == {}, data
print(data["text/html"])
assert plot.spec["layer"]
assert plot.save(sys.argv[1] + "/p.json").exists()
for ask in (lambda: plot.chart, lambda: plot.save(sys.argv[1] + "/p.png")):
    try:
        ask()
    except KernError as error:
        print(error.hint)
"""


def test_plot_without_the_extra_is_a_table(tmp_path):
    """One line says what to install; so do the errors of what cannot be done without."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT, tmp_path], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    table, *hints = done.stdout.strip().rsplit("\n", 2)
    assert "<table" in table
    assert "&lt;b&gt;find&lt;/b&gt;" in table
    assert table.count("%pip install &quot;kern-nb[plots]&quot;") == 1
    assert len(hints) == 2
    assert all('%pip install "kern-nb[plots]"' in hint for hint in hints)


def test_drawing_does_not_need_altair():
    """It takes a second to import, which only those pay who ask for the chart."""
    code = (
        "import sys; from kern_nb.analysis import plots\n"
        "assert 'altair' not in sys.modules and 'vl_convert' not in sys.modules\n"
        "import pandas as pd\n"
        "plots.tool_use(pd.DataFrame({'tool_name': ['a'], 'is_error': [False]}))._repr_mimebundle_()\n"
        "assert 'altair' not in sys.modules and 'vl_convert' in sys.modules\n"
    )

    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_nbconvert_output_has_the_image():
    """In a page it is within the page; in Markdown it is a file beside it."""
    from nbconvert import HTMLExporter, MarkdownExporter

    data, metadata = MADE["tree"]._repr_mimebundle_()
    output = nbformat.v4.new_output("execute_result", data=data, metadata=metadata, execution_count=1)
    cell = nbformat.v4.new_code_cell("plot", outputs=[output], execution_count=1)
    notebook = nbformat.v4.new_notebook(cells=[cell])

    page, _ = HTMLExporter().from_notebook_node(notebook)
    text, resources = MarkdownExporter().from_notebook_node(notebook)

    assert f'src="data:image/png;base64,{data["image/png"].strip()}"' in page
    assert "Sessions and their branches" not in re.sub(r"<[^>]*>", "", page)  # the text is not shown beside it
    ((name, picture),) = resources["outputs"].items()
    assert picture == base64.b64decode(data["image/png"])
    assert f"]({name})" in text


@pytest.mark.parametrize(
    ("reference", "kind", "title"),
    [
        (None, None, "Tokens, cost and time over runs"),
        (None, "tools", "Tool calls"),
        (None, "tree", "Sessions and their branches"),
        ("branch", "runs", "Tokens, cost and time over runs"),
        ("chat/2", "tools", "Tool calls"),
        ("twig", "tree", "Sessions and their branches"),
    ],
)
def test_plot_of_a_store(store, reference, kind, title):
    """Every kind, of what is named or of the newest sessions, on every engine."""
    plot = plots.plot(reference, kind=kind, store=fill_store(store))

    assert plot.title == title
    assert plot.drawing is not None
    if reference:
        assert plot.notes[0] == f"{'Run' if '/' in reference else 'Session'} {reference}."
    else:
        assert plot.notes == (("Sessions without branches are left out.",) if kind == "tree" else ())


def test_branch_plot_includes_inherited_runs():
    """Its parent's runs lead up to its own."""
    with InMemoryDb() as store:
        plot = plots.plot("branch", store=fill_store(store))

    assert list(zip(plot.df["session_id"], plot.df["run_index"], strict=True)) == [
        ("chat", 0),
        ("chat", 1),
        ("chat", 2),
        ("branch", 3),
    ]


def test_plot_of_the_tools_of_a_run():
    """Those of its session's other runs are not counted."""
    with InMemoryDb() as store:
        plot = plots.plot("chat/2", kind="tools", store=fill_store(store))

    assert plot.df.to_dict("records") == [
        {"tool_name": "tool-2", "calls": 1, "succeeded": 0, "failed": 1, "not_known": 0}
    ]


def test_tree_has_all_related_sessions_only():
    """Whichever of its members is named."""
    with InMemoryDb() as store:
        fill_store(store)
        for name in ("chat", "twig", "empty"):
            plot = plots.plot(name, kind="tree", store=store)
            assert set(plot.df["session_id"]) == {"chat", "branch", "twig", "empty"}, name


def test_large_tree_is_limited_to_the_nearest_sessions():
    """It and what it comes from first, however old they are; what is left out is counted."""
    with InMemoryDb() as store:
        store.append_run("root", Run())
        store.branch("root", new_session_id="old")
        store.branch("old", new_session_id="older than most")
        for n in range(60):
            store.branch("root", new_session_id=f"b{n}")
        plot = plots.plot("older", kind="tree", store=store)

    assert {"root", "old", "older than most"} <= set(plot.df["session_id"])
    assert len(plot.df) == 40
    assert plot.notes == ("Session older than most.", "40 of 63 sessions, the nearest first.")


def test_tree_without_branches_has_the_newest_sessions():
    """It is said that there is no branch."""
    with InMemoryDb() as store:
        for n in range(3):
            store.append_run(f"s{n}", Run())
        plot = plots.plot(kind="tree", store=store)

    assert set(plot.df["session_id"]) == {"s0", "s1", "s2"}
    assert plot.notes == ("No session has a branch.",)


def test_plot_is_limited_to_the_newest_sessions(monkeypatch):
    """The others are not read, and are spoken of."""
    from kern_nb.analysis.plots import api

    monkeypatch.setattr(api, "NEWEST", 2)
    with InMemoryDb() as store:
        fill_store(store)
        tools, over = plots.plot(kind="tools", store=store), plots.plot(store=store)

    assert tools.notes == ("The 2 newest sessions.",)
    assert over.notes[0] == "The 2 newest sessions."
    assert over.df["session_id"].nunique() <= 2


def test_plot_of_an_empty_store():
    """Whichever kind is asked for."""
    with InMemoryDb() as store:
        drawn = [plots.plot(kind=kind, store=store) for kind in plots.KINDS]

    assert [plot.drawing for plot in drawn] == [None, None, None]


def test_invalid_kind_or_reference_raises():
    """A kind that there is not, a message, and a run where a session is meant; each with the way on."""
    with InMemoryDb() as store:
        fill_store(store)
        with pytest.raises(BadUsage, match="kind 'tres'") as unknown:
            plots.plot(kind="tres", store=store)
        with pytest.raises(BadUsage, match=r"'chat/2' is a run") as a_run:
            plots.plot("chat/2", kind="tree", store=store)
        with pytest.raises(BadUsage, match=r"'chat/2.1' is a message"):
            plots.plot("chat/2.1", kind="tools", store=store)

    assert unknown.value.hint == "Did you mean 'tree'?"
    assert a_run.value.hint == "Name it: chat"


def test_page_documents_every_kind_and_function():
    """What can be drawn can be read about."""
    from pathlib import Path

    page = (Path(__file__).resolve().parents[2] / "docs" / "plots.md").read_text(encoding="utf-8")

    assert [name for name in plots.__all__ if name != "KINDS" and f"`{name}" not in page] == []
    assert [kind for kind in plots.KINDS if f"| `{kind}` |" not in page] == []


def test_page_examples_run(tmp_path, monkeypatch):
    """In order and in one place, as a reader would type them."""
    import re
    from pathlib import Path

    from kern_nb import store_registry

    monkeypatch.setattr(store_registry, "_stores", {})
    monkeypatch.setattr(store_registry, "_in_use", None)
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).resolve().parents[2] / "docs" / "plots.md"
    space: dict = {}
    for example in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(example, str(page), "exec"), space)

    assert (tmp_path / "runs.html").stat().st_size > 100_000
    store_registry.find(None).close()
