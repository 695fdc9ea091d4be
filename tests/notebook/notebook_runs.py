"""The notebooks in `notebooks/`: as they are committed, and run from top to bottom in a kernel of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"

Outputs = dict[str, list[dict[str, Any]]]
"""The outputs of each code cell, by its id, without the progress lines that a slow machine shows."""

_PROGRESS = re.compile(r"^Read \d+ of \d+ files, ")


def committed(name: str) -> dict[str, Any]:
    """A notebook as it is in the repository."""
    return json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))


def prose(name: str, cell: str) -> str:
    """The text of a cell of a committed notebook."""
    (matching,) = (item for item in committed(name)["cells"] if item["id"] == cell)
    return "".join(matching["source"])


def require_clean(name: str, *, failing: list[str]) -> None:
    """No outputs, a kernel that every machine has, readable cell ids; and only these cells mean to fail."""
    notebook = committed(name)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    ids = [cell["id"] for cell in notebook["cells"]]

    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert all(item.replace("-", "").isalpha() for item in ids)
    assert len(set(ids)) == len(ids)
    assert [cell["id"] for cell in code if "raises-exception" in cell["metadata"].get("tags", ())] == failing


# One process for both runs: importing a client takes a second.
_RUN_TWICE = """
import sys
import nbformat
from nbclient import NotebookClient
for name in ("first", "second"):
    notebook = nbformat.read(sys.argv[1], as_version=4)
    NotebookClient(notebook, timeout=None).execute()
    nbformat.write(notebook, f"{name}.ipynb")
"""


def run_twice(folder: Path, name: str) -> list[Outputs]:
    """Run a notebook in a folder, and again over what the first run left there; the outputs of both."""
    for file in (*NOTEBOOKS.glob("*.py"), NOTEBOOKS / name):
        shutil.copy(file, folder)
    homes = {name: str(folder / ".home") for name in ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    command, environment = [sys.executable, "-c", _RUN_TWICE, name], {**os.environ, **homes}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    result = []
    for run_name in ("first", "second"):
        cells = json.loads((folder / f"{run_name}.ipynb").read_text(encoding="utf-8"))["cells"]
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        result.append({cell["id"]: [item for item in cell["outputs"] if not _is_progress(item)] for cell in code})
    return result


def _is_progress(output: dict[str, Any]) -> bool:
    return _PROGRESS.match("".join(output.get("data", {}).get("text/plain", ""))) is not None


def require_quiet(runs: list[Outputs], *, failing: set[str]) -> None:
    """Every cell ran, only these failed, and nothing is on stderr."""
    for outputs in runs:
        kinds = {(name, output["output_type"]) for name, all_of_it in outputs.items() for output in all_of_it}
        assert {name for name, kind in kinds if kind == "error"} == failing
        assert not [o for all_of_it in outputs.values() for o in all_of_it if o.get("name") == "stderr"]


def differing(runs: list[Outputs]) -> set[str]:
    """The cells that gave something else the second time."""
    first, second = runs
    return {name for name in first if first[name] != second[name]}


def text(outputs: Outputs, cell: str) -> str:
    """The value of a cell, as plain text."""
    (output,) = outputs[cell]
    return "".join(output["data"]["text/plain"])
