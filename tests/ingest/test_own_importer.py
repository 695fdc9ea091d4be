"""The importer of docs/importers.md, as another package adds it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "importers.md"
IMPORT = """
import sys
from kern_nb.db import SqliteDb
store = SqliteDb(sys.argv[1] + "/s.db")
print(store.ingest(sys.argv[1] + "/logs"))
print(store.ingest(sys.argv[1] + "/logs"))
print(store.runs_df()[["session_id", "input", "output", "output_tokens"]].to_csv(index=False))
"""


@pytest.fixture
def package(tmp_path):
    """An installed package with the module of the page."""
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    [section] = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert '[project.entry-points."kern_nb.formats"]' in section
    folder = tmp_path / "site"
    (folder / "my_package").mkdir(parents=True)
    (folder / "my_package" / "help_desk.py").write_text(code)
    info = folder / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kern_nb.formats]\nhelp_desk = my_package.help_desk:HelpDesk\n")
    return folder


def run(package, code, *args):
    environment = os.environ | {"PYTHONPATH": str(package)}
    command = [sys.executable, "-W", "error::UserWarning", "-c", code, *map(str, args)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_importer_of_the_page_reads_a_folder(package, tmp_path):
    """It is detected, reports a bad record, and imports nothing twice."""
    logs = tmp_path / "logs"
    logs.mkdir()
    records = [
        {"ticket": 7, "by": "customer", "text": "It is broken.", "at": "2026-01-02T03:04:05Z"},
        {"ticket": 7, "by": "desk", "text": "Restart it.", "tokens": 12},
        {"ticket": 8, "by": "customer"},
        {"ticket": 8, "by": "customer", "text": "Thanks"},
    ]
    (logs / "desk.jsonl").write_text("\n".join(map(json.dumps, records)))
    output = run(package, IMPORT, tmp_path)

    assert "Stored 2 sessions, 2 runs, 3 messages" in output
    assert "desk.jsonl:3: The message is not imported: 'text'." in output
    assert "skipped 2 sessions already stored" in output
    assert "7,It is broken.,Restart it.,12" in output


def test_the_importer_is_listed(package):
    assert "logs of the help desk" in run(package, "from kern_nb import formats; print(formats())")


def test_a_broken_importer_of_another_package_is_named_and_the_others_work(package, tmp_path):
    """It must not prevent the import of other formats."""
    (package / "my_package" / "help_desk.py").write_text("raise RuntimeError('out of order')")
    path = tmp_path / "chat.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "hi"}]}))
    code = "import sys, warnings; warnings.simplefilter('always'); from kern_nb.db import InMemoryDb\n"
    code += "print(InMemoryDb().ingest(sys.argv[1]))"
    environment = os.environ | {"PYTHONPATH": str(package)}
    command = [sys.executable, "-c", code, str(path)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    assert "Stored 1 session" in result.stdout
    assert "my_package.help_desk:HelpDesk" in result.stderr
    assert "out of order" in result.stderr
