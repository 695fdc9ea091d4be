"""The import contract in `pyproject.toml` holds, and an import upwards breaks it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint_imports(folder):
    """Run import-linter on the package in a folder."""
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache", "--no-logo"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture
def package_copy(tmp_path):
    """A copy of the package and its contract."""
    shutil.copytree(ROOT / "kern_nb", tmp_path / "kern_nb", ignore=shutil.ignore_patterns("__pycache__", "static"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_imports_go_downwards_only():
    """No room imports from a room above it, not even for types or inside a function."""
    result = lint_imports(ROOT)

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    "source",
    [
        "from kern_nb.views import transcript\n",
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from kern_nb.magics import magics\n",
        "def late():\n    from kern_nb.operations import inbox\n",
    ],
)
def test_an_import_upwards_breaks_the_contract(package_copy, source):
    """An import of a room above is reported with its file, wherever in the file it stands."""
    (package_copy / "kern_nb" / "text" / "upwards.py").write_text(source)
    result = lint_imports(package_copy)

    assert result.returncode == 1, result.stdout + result.stderr
    assert "kern_nb.text.upwards -> kern_nb." in result.stdout


def test_a_new_room_needs_a_row(package_copy):
    """A module that the contract does not list is reported."""
    (package_copy / "kern_nb" / "attic.py").write_text("")
    result = lint_imports(package_copy)

    assert result.returncode == 1, result.stdout + result.stderr
    assert "attic" in result.stdout + result.stderr
