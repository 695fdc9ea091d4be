"""Write the pages of docs/ that are made from code. `--check` only says whether they are current."""

from __future__ import annotations

import sys
from pathlib import Path

from kern_nb.db.columns import DTYPES, FRAMES, INHERITED, Column

HERE = Path(__file__).parent

TITLES = {
    "sessions": "`sessions_df()`, `%kern load sessions`: one row a session, newest first",
    "runs": "`runs_df()`, `%kern load runs`: one row a run",
    "messages": "`messages_df()`, `%kern load messages`: one row a message",
    "tool_calls": "`tool_calls_df()`, `%kern load tool_calls`: one row a tool call",
    "scores": "`scores_df()`, `%kern load scores`: one row a score",
    "requirements": "`requirements`, in SQL only: one row for what a paused run waits for",
}

INTRODUCTION = """# Columns

The same columns, in this order and of these dtypes, from every engine. A missing value is `pd.NA`, never 0. Ids are
strings, times are UTC. JSON columns hold JSON text. `sql()` and `%%kern_sql` offer the same columns as the views
`sessions`, `runs`, `messages`, `tool_calls`, `scores` and `requirements`.

Totals of runs and sessions (tokens, cost, tool calls) are the agent's. What a simulated user spent stays on its
messages; its tool calls are rows whose `caller` is "user".

This page is made from `kern_nb/db/columns.py` by `make docs`.
"""


def columns_page() -> str:
    """The reference of all frames."""
    parts = [INTRODUCTION]
    for name, columns in FRAMES.items():
        parts += [f"## {name}", "", f"{TITLES[name]}.", "", *_rows(columns), ""]
    parts += ["With `lineage=True`, frames of one branch have one more:", "", *_rows((INHERITED,)), ""]
    return "\n".join(parts)


def _rows(columns: tuple[Column, ...]) -> list[str]:
    return [
        "| column | dtype | meaning |",
        "|---|---|---|",
        *(f"| `{c.name}` | {DTYPES[c.kind]}{', JSON' if c.kind == 'json' else ''} | {c.meaning} |" for c in columns),
    ]


def magics_page() -> str:
    """The reference of all verbs."""
    from kern_nb.notebook.grammar import reference

    return reference()


PAGES = {"columns.md": columns_page, "magics.md": magics_page}


def main() -> int:
    """Write the pages, or (`--check`) name those that are not current."""
    stale = []
    for name, page in PAGES.items():
        path, text = HERE / name, page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
                print(f"wrote docs/{name}")
    if stale and "--check" in sys.argv:
        print(f"not current: {', '.join(stale)}; run make docs")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
