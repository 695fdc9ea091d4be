"""The guide to analysis is not only read: its examples run as they stand, and give what the text beside them says."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "analysis.md"


def test_page_examples_run(tmp_path, monkeypatch):
    """In order and in one place, as a reader would type them."""
    from kern_nb import store_registry

    monkeypatch.setattr(store_registry, "_stores", {})
    monkeypatch.setattr(store_registry, "_in_use", None)
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    for example in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(example, str(PAGE), "exec"), space)

    assert space["again"].session.session_id == "what-if"
    assert space["again"].runs[0].output == "It was shipped."
    assert space["again"].comparison.divergence.a == "parcel/1.1"
    assert space["comparison"].turns["shared"].sum() == 2
    assert space["groups"].groups["success_rate"].tolist() == [0.5, 1.0]
    assert space["groups"].better["key"].tolist() == ["task-0"]
    assert set(space["df"]["state.task_id"].dropna()) == {"task-0", "task-1"}
    space["store"].close()
