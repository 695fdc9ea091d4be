"""The reference page of the columns: its example runs, and its text is current."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import polars
import pyarrow as pa

from kern_nb.db.columns import FRAMES, JSON_ROOTS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "columns.md"


def test_page_example_runs():
    """Each line returns what the text beside it says."""
    text = PAGE.read_text(encoding="utf-8")
    space: dict[str, object] = {}
    result = []
    for line in re.split(r"\n(?=\S)(?!\))", "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))):
        if line.startswith("store."):
            result.append(eval(line, space))
        else:
            exec(line, space)

    runs, sizes, calls, table, polar = result
    assert runs.to_dict("list") == {"session_id": ["t1-a", "t2-a"], "model": ["m-1"] * 2, "total_tokens": [25] * 2}
    assert sizes.to_dict() == {"t1": 2, "t2": 2}
    assert calls.iloc[0].tolist() == ["weather", "sunny", "Rome", "1"]
    assert calls["metadata.trial"].astype("Int64").tolist() == [1]
    assert isinstance(table, pa.Table)
    assert isinstance(polar, polars.DataFrame)
    assert polar["metadata.task_id"].to_list() == ["t1", "t2"]
    assert isinstance(runs, pd.DataFrame)


def test_page_lists_every_column_and_json_root():
    """Each is listed under its frame, with its description."""
    page = PAGE.read_text(encoding="utf-8")
    parts = {part.partition("\n")[0]: part for part in page.split("\n## ")}

    for name, columns in FRAMES.items():
        for column in columns:
            assert re.search(
                rf"^\| `{column.name}` \| .* \| {re.escape(column.description)} \|$", parts[name], re.MULTILINE
            )
    for root, place in JSON_ROOTS.items():
        assert f"`{root}.KEY`" in page
        assert place.description in page
