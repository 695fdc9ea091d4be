"""The guide to agents is not only read: its examples run as they stand, and do what the text beside them says."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "agents.md"


def test_examples_of_agents_page_run(tmp_path, monkeypatch):
    """In order and in one place, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}

    for example in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(example, str(PAGE), "exec"), space)

    db = space["db"]
    outputs = db.runs_df().groupby("session_id")["output"].apply(list)
    assert outputs["conversation_123"] == ["Hello Alice.", "You are Alice."]
    assert db.get_session("shopping").session_state["items"] == ["bread"]
    assert db.tool_calls_df("counter")["result"].tolist() == ["Refunded 60.00."]
    assert outputs["poems"] == ["Here it is.", "A poem."]
    assert outputs["pipeline"][0] == "A better poem."
    db.close()
