"""The tour: clean as it is committed, and running from top to bottom in a kernel of its own, also twice."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
TOUR = json.loads((NOTEBOOKS / "tour.ipynb").read_text(encoding="utf-8"))


def test_the_committed_tour_is_clean():
    """No outputs, a kernel that every machine has, readable cell ids, one cell that means to fail."""
    code = [cell for cell in TOUR["cells"] if cell["cell_type"] == "code"]

    assert TOUR["metadata"]["kernelspec"]["name"] == "python3"
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert all(cell["id"].replace("-", "").isalpha() for cell in TOUR["cells"])
    assert [cell["id"] for cell in code if "raises-exception" in cell["metadata"].get("tags", ())] == ["error"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The tour's cells after a first and a second run in one folder."""
    folder = tmp_path_factory.mktemp("tour")
    for file in NOTEBOOKS.glob("*.py"):
        shutil.copy(file, folder)
    shutil.copy(NOTEBOOKS / "tour.ipynb", folder)
    homes = {name: str(folder / ".home") for name in ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    found = []
    for name in ("first", "second"):
        command = [sys.executable, "-m", "nbconvert", "--execute", "--to", "notebook", "--output", name, "tour.ipynb"]
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **homes}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        cells = json.loads((folder / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        found.append({cell["id"]: cell["outputs"] for cell in cells if cell["cell_type"] == "code"})
    return found


def test_every_cell_runs_and_only_the_one_that_means_to_fails(runs):
    """Nothing on stderr either."""
    for outputs in runs:
        kinds = {(name, output["output_type"]) for name, all_of_it in outputs.items() for output in all_of_it}
        assert {name for name, kind in kinds if kind == "error"} == {"error"}
        assert not [o for all_of_it in outputs.values() for o in all_of_it if o.get("name") == "stderr"]


def test_an_error_is_two_lines_in_a_real_kernel(runs):
    """What is saved in the notebook is the type, the message and the hint."""
    (error,) = runs[0]["error"]

    assert error["ename"] == "BadUsage"
    assert len(error["traceback"]) == 2
    assert "Did you mean 'sessions'?" in error["traceback"][1]


def test_silent_verbs_leave_no_output(runs):
    """Loading, attaching, detaching and assigning show nothing."""
    assert [runs[0][name] for name in ("attach", "count-before", "detach")] == [[], [], []]


def test_results_are_saved_as_text_and_html(runs):
    """So that a notebook can be read where nothing runs."""
    for name in ("import", "sessions", "show", "branch", "show-branch", "check"):
        (output,) = runs[0][name]
        assert set(output["data"]) == {"text/plain", "text/html"}
        assert "object at 0x" not in "".join(output["data"]["text/plain"])


def test_a_second_run_shows_the_same(runs):
    """Whatever the first one left behind; only times, and the id of what waits, are others."""
    first, second = runs

    others = {name for name in first if first[name] != second[name]}
    assert others <= {"branch", "inbox", "go-on"}
