"""Damaged files of every format: nothing but a KernError is raised, whole sessions are stored, the intact part is kept.

``tests/stress/damaged_imports.py`` does this at many more places, and with large files.
"""

from __future__ import annotations

import pytest
from damage import Inspector, damages
from small_files import BINARY_FILES, binary_data, json_files

FILES = {file.name: file.data for file in json_files()}


def inspect_all(folder, name, data, n):
    """The faults of a number of damaged versions of a file."""
    inspector = Inspector(folder, name, data)
    assert inspector.contents
    labeled = ((f"{damage.kind} at {damage.place}", damage) for damage in damages(name, data, n))
    return [(label, faults) for label, damage in labeled if (faults := inspector.inspect(damage))]


@pytest.mark.parametrize("name", FILES)
def test_damaged_json(name, tmp_path):
    assert inspect_all(tmp_path, name, FILES[name], 6) == []


@pytest.mark.parametrize("importer", BINARY_FILES)
def test_damaged_databases_and_archives(importer, tmp_path):
    assert inspect_all(tmp_path, *binary_data(importer, tmp_path), 6) == []
