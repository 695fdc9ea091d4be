"""`kern_nb.export` to the formats of the Hugging Face Hub: traces in STS, chat datasets in Parquet."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from bundles import fill_store

import kern_nb
from kern_nb.db import InMemoryDb, SqliteDb
from kern_nb.errors import BadUsage
from kern_nb.operations.export import parquet
from kern_nb.records import Message, Run, Session, ToolCall, Usage, text_of

TIME = datetime(2026, 4, 5, 6, 7, 8, 250_000, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    """A SQLite store with a session of two runs, a branch of it and a member's run."""
    with SqliteDb(tmp_path / "s.db") as store:
        store.save_session(
            Session(session_id="a", agent_id="tidier", metadata={"task": "x"}, created_at=5, updated_at=9)
        )
        store.append_run("a", a_run())
        store.rename_session("a", "Files")
        store.add_score("a", "reward", 0.5)
        store.branch("a", new_session_id="b")
        store.append_run("b", a_run("two"))
        top = store.append_run("team", a_run(run_type="team", team_id="desk"))
        store.append_run("team", a_run("inner", parent_run_id=top.run_id))
        yield store


def a_run(name="one", **fields):
    calls = [
        ToolCall(tool_call_id="k1", tool_name="list_files", args={"path": "."}),
        ToolCall(tool_call_id="k2", tool_name="list_files", args="{broken"),
        ToolCall(tool_call_id="k3", tool_name="stat", result={"size": 1}, status="completed"),
    ]
    reasoning = [{"type": "thinking", "thinking": "List them."}, {"type": "text", "text": "Wait."}]
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}
    messages = [
        Message(role="developer", content="Be brief."),
        Message(role="user", content=[{"type": "text", "text": f"Which, {name}?"}, picture], created_at=TIME),
        Message(
            role="assistant", content=reasoning, tool_calls=calls, model="acme", usage=Usage(input_tokens=8, cost=0.5)
        ),
        Message(role="tool", tool_call_id="k1", tool_name="list_files", content=["a", "b"]),
        Message(role="tool", tool_call_id="k2", tool_name="list_files", content="invalid", is_error=True),
        Message(role="assistant", content="Two.", model="acme", usage=Usage(input_tokens=9, output_tokens=5)),
    ]
    return Run(**{"messages": messages, "agent_id": "tidier"} | fields)


def export(store, path, *references, **options):
    return kern_nb.export(*references, path=path, store=store, everything=not references, progress=False, **options)


def lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


CONVERSATION = [
    ("system", "Be brief."),
    ("user", "Which, one?"),
    ("assistant", "Wait."),
    ("tool", '{"size": 1}'),
    ("tool", '["a", "b"]'),
    ("tool", "invalid"),
    ("assistant", "Two."),
]


def test_an_sts_file(store, tmp_path):
    """A header with the harness, then texts, reasoning, calls and times; imported, the same calls and results."""
    report = export(store, tmp_path / "a.jsonl", "a", format="sts")
    header, *records = lines(tmp_path / "a.jsonl")
    messages = [record["message"] for record in records]
    calls = messages[2]["toolCalls"]
    other = InMemoryDb()
    imported = other.ingest(tmp_path / "a.jsonl", progress=False)
    session = other.get_session("a")

    assert (report.format, report.sessions, report.runs) == ("sts", 1, 1)
    assert header == {"type": "session", "harness": "tidier", "id": "a", "name": "Files"}
    assert {record["type"] for record in records} == {"message"}
    assert [(m["role"], m["content"]) for m in messages] == CONVERSATION
    assert messages[1]["timestamp"] == 1_775_369_228_250
    assert (messages[2]["reasoningContent"], messages[2]["model"]) == ("List them.", "acme")
    assert [(c["id"], c["function"]["name"]) for c in calls] == [
        ("k1", "list_files"),
        ("k2", "list_files"),
        ("k3", "stat"),
    ]
    assert [c["function"]["arguments"] for c in calls] == ['{"path": "."}', "{broken", "{}"]
    assert [m.get("toolCallId") for m in messages[3:6]] == ["k3", "k1", "k2"]
    assert (imported.errors, session.session_name, session.agent_id) == ([], "Files", "tidier")
    assert [m.role for m in session.runs[0].messages] == [role for role, _ in CONVERSATION]
    assert [c.args for c in session.runs[0].tool_calls] == [{"path": "."}, "{broken", {}]
    assert session.runs[0].messages[2].content[0] == {"type": "thinking", "thinking": "List them."}
    assert stat.S_IMODE((tmp_path / "a.jsonl").stat().st_mode) == 0o600


def test_sts_has_a_file_a_session(store, tmp_path):
    """Several are a folder; a branch has what it inherits, members' runs are left out."""
    with pytest.raises(BadUsage, match="one session, got 3"):
        export(store, tmp_path / "all.jsonl", format="sts")
    export(store, tmp_path / "traces", format="sts")

    assert sorted(path.name for path in (tmp_path / "traces").iterdir()) == ["a.jsonl", "b.jsonl", "team.jsonl"]
    assert len(lines(tmp_path / "traces" / "b.jsonl")) == 1 + 2 * 7
    assert [r["message"]["content"] for r in lines(tmp_path / "traces" / "team.jsonl")[1:]][1] == "Which, one?"
    assert len(lines(tmp_path / "traces" / "team.jsonl")) == 1 + 7


def test_a_parquet_file(store, tmp_path):
    """A row a session: messages as chat trainers read them, and facts of the session."""
    report = export(store, tmp_path / "all.parquet")
    rows = {row["id"]: row for row in pq.read_table(tmp_path / "all.parquet").to_pylist()}
    row = rows["a"]
    call = row["messages"][2]["tool_calls"][0]

    assert (report.format, report.sessions, report.size) == ("parquet", 3, (tmp_path / "all.parquet").stat().st_size)
    assert list(rows) == ["a", "b", "team"]
    assert [(m["role"], m["content"]) for m in row["messages"]] == CONVERSATION
    assert call == {"id": "k1", "type": "function", "function": {"name": "list_files", "arguments": '{"path": "."}'}}
    assert (row["messages"][2]["reasoning_content"], row["messages"][4]["name"]) == ("List them.", "list_files")
    assert row["messages"][0]["tool_calls"] is None
    facts = {key: value for key, value in row.items() if key not in ("messages", "created_at", "updated_at")}
    assert facts == {
        "id": "a",
        "title": "Files",
        "agent": "tidier",
        "model": "acme",
        "models": ["acme"],
        "parent_session_id": None,
        "status": "COMPLETED",
        "n_runs": 1,
        "n_tool_calls": 3,
        "n_tool_errors": 1,
        "usage": {"input_tokens": 17, "output_tokens": 5},
        "cost": 0.5,
        "metadata": '{"task": "x"}',
        "scores": '{"reward": 0.5}',
    }
    assert row["created_at"] == datetime.fromtimestamp(5, UTC)
    assert (rows["b"]["parent_session_id"], rows["b"]["usage"]["input_tokens"]) == ("a", 17)  # its own
    assert rows["team"]["usage"]["input_tokens"] == 34  # members included
    assert stat.S_IMODE((tmp_path / "all.parquet").stat().st_mode) == 0o600


def test_parquet_is_imported_again(store, tmp_path):
    """As chats: the messages by role, the calls, and what a single run used."""
    export(store, tmp_path / "all.parquet")
    other = InMemoryDb()
    report = other.ingest(tmp_path / "all.parquet", progress=False)
    session = other.get_session("a")

    assert (report.errors, report.sessions) == ([], 3)
    assert (session.session_name, session.created_at) == ("Files", 5)
    assert [(m.role, text_of(m.content)) for m in session.runs[0].messages] == CONVERSATION
    assert session.runs[0].messages[2].content[0] == {"type": "thinking", "thinking": "List them."}
    assert [(c.tool_call_id, c.tool_name, c.args) for c in session.runs[0].tool_calls] == [
        ("k1", "list_files", {"path": "."}),
        ("k2", "list_files", "{broken"),
        ("k3", "stat", {}),
    ]
    assert session.runs[0].messages[2].model == "acme"
    frame = other.sessions_df(["a"])
    assert frame[["input_tokens", "output_tokens", "cost"]].to_numpy().tolist() == [[17, 5, 0.5]]


def test_parquet_is_written_in_batches(tmp_path, monkeypatch):
    """So that few sessions are in memory at once; the schema is the same without any session of a kind."""
    monkeypatch.setattr(parquet, "_MAX_ROWS", 2)
    store = InMemoryDb()
    for number in range(5):
        store.append_run(f"s{number}", Run(messages=[Message(role="user", content="x" * number)]))
    export(store, tmp_path / "x.parquet")
    file = pq.ParquetFile(tmp_path / "x.parquet")

    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [2, 2, 1]
    assert file.schema_arrow.equals(parquet.SCHEMA)


def test_awkward_values(tmp_path):
    """Lone surrogates, NUL, infinite numbers, times: both formats are plain JSON and UTF-8."""
    store = fill_store(InMemoryDb())
    assert export(store, tmp_path / "x.parquet").sessions == 7
    assert export(store, tmp_path / "sts", format="sts").sessions == 7
    for path in (tmp_path / "sts").iterdir():
        assert lines(path)[0]["harness"]
    assert len(pq.read_table(tmp_path / "x.parquet").to_pylist()) == 7


@pytest.mark.parametrize(
    ("path", "format", "message", "hint"),
    [
        ("x.jsonl", None, "must end in .json", "--format sts"),
        ("x.csv", None, "must end in .json", "%kern load"),
        ("x.json", "sts", "ends in .jsonl for one session, or a folder", "x.jsonl"),
        ("x.json", "parquet", "needs a path that ends in .parquet", "x.parquet"),
        ("x.parquet", "bundle", "needs a path that ends in .json", "x.json"),
        ("x", "parquet", "needs a path that ends in .parquet", "x.parquet"),
        ("x.json", "aitf", "Unknown format 'aitf'", "atif"),
        ("x.json", "csv", "Unknown format 'csv'", "parquet"),
        ("taken.parquet", None, "exists", "--force"),
    ],
)
def test_formats_that_do_not_suit_the_path_are_refused(store, tmp_path, monkeypatch, path, format, message, hint):
    """With what to write instead; nothing is written."""
    monkeypatch.chdir(tmp_path)
    Path("taken.parquet").write_text("mine")
    before = sorted(Path().iterdir())
    with pytest.raises(BadUsage) as raised:
        export(store, path, "a", format=format)

    assert message in str(raised.value)
    assert hint in raised.value.hint
    assert sorted(Path().iterdir()) == before
    assert Path("taken.parquet").read_text() == "mine"


def test_an_interrupted_parquet_export_leaves_nothing(store, tmp_path, monkeypatch):
    """A file that was there is as it was."""
    monkeypatch.chdir(tmp_path)
    Path("x.parquet").write_text("mine")
    before = sorted(Path().iterdir())

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(parquet, "_to_row", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(store, "x.parquet", "a", overwrite=True)
    assert sorted(Path().iterdir()) == before
    assert Path("x.parquet").read_text() == "mine"
