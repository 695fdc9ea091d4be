"""Scripts in the documented style, on Agno and, with other imports, on kern_nb: what models are told and what is shown.

The differences are in ``differences.toml``, each with its reason.
"""

from __future__ import annotations

import json
import tomllib
from fnmatch import fnmatchcase
from typing import Any

import pytest

pytest.importorskip("agno.agent", reason="needs agno")

import agno_models
import kern_models
from comparison import SCRIPTS, Difference, differences, run_script

NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py"))
EXPECTED: list[dict[str, Any]] = tomllib.loads((SCRIPTS.parent / "differences.toml").read_text())["difference"]


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch):
    monkeypatch.setenv("AGNO_TELEMETRY", "false")


def describe(difference: Difference) -> str:
    """A difference that is not expected, for a person."""
    return f"{difference.at}\n  Agno:    {json.dumps(difference.theirs)}\n  kern_nb: {json.dumps(difference.ours)}"


def lacking(difference: Difference, texts: list[str]) -> list[str]:
    """The texts that one of the values lacks, although the other wording has to have them, too."""
    return [text for text in texts for value in (difference.theirs, difference.ours) if text not in str(value)]


@pytest.mark.parametrize("name", NAMES)
def test_script(name, tmp_path, record_property):
    """The same requests and results, but for the listed differences, all of which there are."""
    record_property("suite", "scripts of Agno's documented features")
    record_property("store", "sqlite")
    path = SCRIPTS / f"{name}.py"
    theirs = run_script(path, tmp_path / "agno", agno_models.parity_model)
    ours = run_script(path, tmp_path / "kern_nb", kern_models.parity_model, "kern_nb")
    expected = [entry for entry in EXPECTED if name in entry["scripts"]]

    rest = differences(theirs, ours)
    problems = []
    for entry in expected:
        matching = [difference for difference in rest if fnmatchcase(difference.at, entry["at"])]
        if not matching:
            problems.append(f"{entry['at']}: is listed, and does not differ")
        for difference in matching:
            problems += [
                f"{describe(difference)}\n  lacks {text!r}" for text in lacking(difference, entry["both_tell"])
            ]
        rest = [difference for difference in rest if difference not in matching]
    problems += [describe(difference) for difference in rest]

    assert theirs.shown
    assert not problems, "\n".join(problems)


def test_expected_differences():
    """Every one has a reason, and is of scripts that exist."""
    for entry in EXPECTED:
        assert entry.keys() == {"scripts", "at", "reason", "both_tell"}, entry
        assert set(entry["scripts"]) <= set(NAMES), entry
        assert entry["reason"].strip()
