"""Write the pages of docs/ that are generated from code. `--check` only reports whether they are current."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from pathlib import Path

from kern_nb.db.columns import DTYPES, FRAMES, INHERITED, JSON_ROOTS, Column
from kern_nb.db.dtypes import ARROW_TYPES

HERE = Path(__file__).parent

TITLES = {
    "sessions": "`sessions_df()`, `%kern load sessions`: one row per session, newest first",
    "runs": "`runs_df()`, `%kern load runs`: one row per run",
    "messages": "`messages_df()`, `%kern load messages`: one row per message",
    "tool_calls": "`tool_calls_df()`, `%kern load tool_calls`: one row per tool call",
    "scores": "`scores_df()`, `%kern load scores`: one row per score",
    "requirements": "`requirements`, in SQL only: one row per requirement of a paused run",
}

INTRODUCTION = """# Columns

A store has five frames, and `requirements` as a view in SQL:

{contents}

Every engine returns the same columns, in this order and with these dtypes. A missing value is `pd.NA`, never 0. Ids
are strings, times are UTC, JSON columns contain JSON text. Every frame has `session_id`, and those about runs have
`run_id`, so that any two can be merged.

`sql()` and `%%kern_sql` have the same columns in the views `sessions`, `runs`, `messages`, `tool_calls`, `scores` and
`requirements`. A query is one SELECT (on DuckDB and SQLite also EXPLAIN of one) in the dialect of the engine. It may
call functions that compute a value from their arguments; it cannot access files, settings, system tables or other
databases, and changes nothing. In a file it may also read your own tables beside those of the store. A result may
take a third of the free memory. PostgreSQL requires only the right to SELECT from the store's tables.

Totals of runs and sessions (tokens, cost, tool calls) are those of the agent. The usage of a simulated user stays on
its messages; its tool calls are rows whose `caller` is "user".

## Selecting rows and columns

```python
from kern_nb.db import InMemoryDb
from kern_nb.records import Message, Run, Session, ToolCall, Usage

store = InMemoryDb()
for task, city in (("t1", "Rome"), ("t2", "Oslo")):
    call = ToolCall(tool_call_id="c", tool_name="weather", args={{"city": city}}, result="sunny")
    messages = [
        Message(role="user", content=f"How is {{city}}?"),
        Message(role="assistant", tool_calls=[call], usage=Usage(input_tokens=20, output_tokens=5)),
    ]
    store.append_run(f"{{task}}-a", Run(messages=messages, model="m-1"))
    store.save_session(Session(session_id=f"{{task}}-a", metadata={{"task_id": task, "trial": 1}}))

store.runs_df(columns=["session_id", "model", "total_tokens"])
store.messages_df(limit=100, expand=["metadata.task_id"]).groupby("metadata.task_id").size()
store.tool_calls_df("t1-a", columns=["tool_name", "result"], expand=["args.city", "metadata.trial"])

store.table("messages", columns=["session_id", "content"])   # pyarrow.Table
store.polars("runs", expand=["metadata.task_id"])            # polars.DataFrame
```

The selection is made in SQL: omitted columns and rows are neither computed nor read. In a notebook:
`%kern load runs --columns session_id,model --expand metadata.task_id`.

| argument | meaning |
|---|---|
{arguments}

### Values inside JSON

A path is a JSON column and the keys in it, separated by dots; it is also the name of the new column.

| path | frames | value |
|---|---|---|
{paths}

Rows of runs, messages, tool calls and scores have the values of their session. Write a key that contains a dot
as a tuple: `expand=[("metadata", "a.b")]`.

The new columns are text (dtype `string`), the same from every engine: strings as they are, numbers, `true` and `false`
as in JSON, objects and lists as JSON text. Missing values and null are `pd.NA`. Decimals, dates and times are
the text that Python writes for them. For numbers, convert: `df["metadata.trial"].astype("Int64")`.

### pandas, Arrow, Polars

The methods `sessions_df()`, `runs_df()` and so on return pandas DataFrames, whose text stays in Arrow's memory.
`store.table(name, ...)` returns the same as a `pyarrow.Table`, without a conversion to pandas, and
`store.polars(name, ...)` as a `polars.DataFrame` (`pip install kern-nb[polars]`). Both accept the same arguments.

| dtype | Arrow | Polars |
|---|---|---|
{types}

This page is generated from `kern_nb/db/columns.py` by `make docs`.
"""

ARGUMENTS = {
    "`session_id`": "Rows of one session, or of several.",
    "`user_id`, `agent_id`": "Rows of the sessions of a user; of the sessions, or runs, of an agent.",
    "`since`, `until`": "Rows created at or after, and before, a time: a string like `2026-11-20T14:30`, a date or a"
    " datetime; UTC if it has no time zone.",
    "`limit`": "The maximum number of rows, from the start of the frame.",
    "`columns`": "Only these columns, in this order. Totals of other columns are not computed:"
    ' `runs_df(columns=["run_id", "status"])` does not read messages.',
    "`expand`": "Values inside JSON, as additional columns; see below.",
    "`lineage`": "Include the inherited rows of a branch, marked by `inherited`. For runs, messages and tool calls.",
}

POLARS = {
    "string": "String",
    "int64": "Int64",
    "double": "Float64",
    "bool": "Boolean",
    "timestamp[us, tz=UTC]": "Datetime(us, UTC)",
}


def columns_page() -> str:
    """The reference of all frames."""
    types = {DTYPES[kind]: str(arrow) for kind, arrow in ARROW_TYPES.items()}
    parts = [
        INTRODUCTION.format(
            contents="\n".join(f"* [{name}](#{name}): {title.rpartition(': ')[2]}" for name, title in TITLES.items()),
            arguments="\n".join(f"| {names} | {meaning} |" for names, meaning in ARGUMENTS.items()),
            paths="\n".join(
                f"| `{root}.KEY`, `{root}.KEY.KEY` | {'every' if path.table == 'sessions' else path.table} |"
                f" {path.description} |"
                for root, path in JSON_ROOTS.items()
            ),
            types="\n".join(f"| {dtype} | {arrow} | {POLARS[arrow]} |" for dtype, arrow in types.items()),
        )
    ]
    for name, columns in FRAMES.items():
        parts += [f"## {name}", "", f"{TITLES[name]}.", "", *_rows(columns), ""]
    parts += ["With `lineage=True`, frames of a branch have one more column:", "", *_rows((INHERITED,)), ""]
    return "\n".join(parts)


def _rows(columns: tuple[Column, ...]) -> list[str]:
    return [
        "| column | dtype | meaning |",
        "|---|---|---|",
        *(
            f"| `{c.name}` | {DTYPES[c.kind]}{', JSON' if c.kind == 'json' else ''} | {c.description} |"
            for c in columns
        ),
    ]


API_INTRODUCTION = """# Python API

<!-- Generated by docs/make.py from `kern_nb.__all__`. -->

Every name can be imported from `kern_nb`.
"""


def api_page() -> str:
    """The reference of all public names."""
    import kern_nb

    parts = [API_INTRODUCTION]
    for name in kern_nb.__all__:
        value = getattr(kern_nb, name)
        directive = [f".. autofunction:: kern_nb.{name}"]
        if inspect.isclass(value):
            # The engines' shared methods are those of SessionStore; bases outside of the package are not shown.
            is_engine = issubclass(value, kern_nb.SessionStore) and value is not kern_nb.SessionStore
            foreign = next(base.__name__ for base in value.__mro__ if not base.__module__.startswith("kern_nb"))
            members = [] if is_engine else [f"   :inherited-members: {foreign}"]
            directive = [f".. autoclass:: kern_nb.{name}", "   :members:", *members]
        parts += [f"## {name}\n", "```{eval-rst}", *directive, "```\n"]
    return "\n".join(parts)


FORMATS_INTRODUCTION = """# Importing sessions

<!-- Generated by docs/make.py from kern_nb/ingest/importers. -->

kern_nb imports the sessions that other programs have recorded. Two lines import those that coding agents keep on this
machine:

```
%kern attach mine.duckdb
%kern import --mine
```

`%kern import --mine --list` shows what there is and imports nothing, `--from codex,claude_code` selects programs,
`--since 2026-11-01` leaves out older sessions, and `--follow` keeps the store up to date until you interrupt it. Other
recordings are imported by their path: `%kern import traces/ chats.jsonl`. The format of a file is detected from its
content; `--format NAME` states it. `%kern formats` shows the list below. The notebook
`notebooks/your_own_sessions.ipynb` shows an import and what can be done with it.

## What is stored

* A recorded conversation is a **session**. A prompt with all that follows, up to the next one, is a **run** with its
  **messages** and **tool calls**. Texts that the program itself adds in the user's name begin no run.
* **Branches.** A fork, an edited prompt, a retry, a rewind or a rollback is a branch: a session that inherits what
  is before. `%kern plot SESSION --kind tree` shows them, `%kern compare` compares them.
* **Members.** A sub-agent is no session: its runs belong to the session that started it, with the starting run in
  `parent_run_id`. `%kern show SESSION/2` shows run 2 with the runs of its members.
* **Counted once.** Programs copy the beginning of a session into the file of a fork. The copies are recognized by the
  ids of the records, and neither stored nor counted again; the report states their share of the tokens. A second import
  of the same files adds nothing, and one of a file that has grown adds what is new.
* The title of a session is `session_name`, the program `agent_id`. The working folder, the version and similar values
  are in `metadata`: `%kern load sessions --expand metadata.cwd`.

## Tokens and costs

* `input_tokens` are all tokens that a model has read, from the cache or not. `cache_read_tokens` and
  `cache_write_tokens` are parts of them; `output_tokens` includes reasoning. Programs count in different ways: their
  own numbers stay in the `extra` of the message.
* What a source does not state is missing, never 0: tokens, times, models.
* A cost that the source states stays as it is; its `cost_source` is `stated`. `%kern cost --by model,day` estimates the
  others from list prices, and `--save` stores these with the `cost_source` `estimated`. Without a listed price it is
  `unknown`.

## What stays on this machine

Everything: an import reads files and writes to your store. It sends nothing anywhere, does not change the files, and
executes nothing in them. Keep in mind that transcripts contain what the tools have read, which may include secrets; a
store is readable by its owner only.

## Files, folders, archives

A path may be a file, a folder with subfolders, a pattern or a zip archive. Files may be compressed (`.gz`, `.zst`). A
damaged record does not prevent the import of the rest: the report shows its file, line and reason, and keeps all of
them in `.errors`. Files of a folder that are not imported are counted in the report under "Passed over", with a reason
if they may have been meant: an unknown layout, unreadable, too large. All of them are in `.passed_over`:

```python
report = store.ingest("traces/")
report.passed_over["unknown layout"]        # the file and the reason of each
```

## Programs with a usual folder

`%kern import --mine` reads these files. A name like `$CODEX_HOME` is an environment variable that replaces the folder.
A folder that is relative, such as `jobs`, is that of a project: import it by its path.
"""


def formats_page() -> str:
    """The formats that can be imported, in the order of their names."""
    from kern_nb import formats

    infos = sorted(formats(), key=lambda info: info.name)
    parts = [FORMATS_INTRODUCTION]
    for info in infos:
        if info.locations:
            parts += [f"* `{info.name}`: {info.reads}", *_places(info.locations)]
    parts += ["", "## Other files", ""]
    parts += [f"* `{info.name}`: {info.reads}" for info in infos if not info.locations]
    parts += ["", "Another package can add a format: see [Writing an importer](importers.md).", ""]
    return "\n".join(parts)


def _places(locations: tuple[str, ...]) -> list[str]:
    """The places of files, each with the variables that replace its folder."""
    notes: dict[str, list[str]] = {}
    for location in locations:
        path, _, override = location.removesuffix(")").partition(" (")
        notes.setdefault(path, [])
        if override:
            notes[path].append("`{}` replaces `{}`".format(*override.split(" replaces ")))
    return [f"  * `{path}`" + (" (" + ", ".join(texts) + ")" if texts else "") for path, texts in notes.items()]


def magics_page() -> str:
    """The reference of all verbs."""
    from kern_nb.magics.help_pages import reference

    return reference()


def agno_page() -> str:
    """The page for users of Agno, whose tables need Agno; without it, the page as it is.

    `--check` does not check it: `make peers` does.
    """
    if importlib.util.find_spec("agno") is None or "--check" in sys.argv:
        return (HERE / "agno.md").read_text(encoding="utf-8")
    import agno_table

    return agno_table.page()


PAGES = {
    "agno.md": agno_page,
    "api.md": api_page,
    "columns.md": columns_page,
    "formats.md": formats_page,
    "magics.md": magics_page,
}


def main() -> int:
    """Write the pages, or (`--check`) list those that are not current."""
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
