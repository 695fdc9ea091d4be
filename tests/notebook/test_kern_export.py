"""`%kern export` and `kern_nb.export`: the format by name or by the path's suffix; whole, or not there at all."""

from __future__ import annotations

import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest

import kern_nb
from kern_nb.db import DuckDb, InMemoryDb
from kern_nb.errors import BadUsage, KernError, SessionNotFound
from kern_nb.records import Message, Run, ToolCall

HOSTILE = (
    "<script>alert('x')</script><img src=x onerror=alert(1)>",
    "</td></table></section></body></html><style>*{display:none}</style>",
    """" onmouseover="alert(1)" x='""",
    "be\x00fore \x1b[31mred \u202egnp.exe",
    "half \ud83d of a pair",
    "<a href='javascript:alert(1)'>x</a> <base href=//evil.example> <link rel=stylesheet href=//evil.example>",
)


class Page(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "br", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def files():
    return sorted(path.name for path in Path().iterdir())


def test_the_verb_equals_the_function(notebook, chats):
    """Names, then the path; the value says what was written, and the line that writes it again."""
    report = notebook.run("%kern export alpha alps/0 'my chats.json'")

    assert (report.format, report.sessions, report.runs, report.messages, report.tool_calls) == ("bundle", 2, 4, 16, 4)
    assert report.size == Path("my chats.json").stat().st_size
    assert (
        repr(report) == f"Wrote 2 sessions, 4 runs, 16 messages, 4 tool calls to my chats.json: {report.size:,} bytes."
    )
    line = shlex.join(report.words)
    assert line == "export alpha alps/0 'my chats.json'"
    again = kern_nb.export("alpha", "alps/0", path="my chats.json", overwrite=True)
    assert again.words == (*report.words, "--force")
    assert notebook.run(f"%kern {shlex.join(again.words)}") == again
    assert files() == ["my chats.json"]


def test_an_exported_bundle_can_be_imported(notebook, chats):
    """`%kern import` knows a bundle by itself, in another store."""
    notebook.run("%kern export --all all.json")
    notebook.run("%kern attach other.duckdb")
    report = notebook.run("%kern import all.json")

    assert (report.sessions, report.runs, report.errors) == (2, 4, [])
    assert len(notebook.run("%kern show alpha").runs) == 3
    assert notebook.run("%kern import all.json --format bundle").skipped == 2


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("alpha x.json --format atif", ["x.json"]),
        ("alpha alps/0 x --format atif", ["alpha.json", "alps-run-0.json"]),
        ("--all x/ --format sts", ["alpha.jsonl", "alps.jsonl"]),
        ("alpha alps x.parquet", ["x.parquet"]),
    ],
)
def test_formats_of_other_programs(notebook, chats, words, names):
    """Files that can be imported again; the value has the line that writes them again."""
    report = notebook.run(f"%kern export {words}")
    again = notebook.run(f"%kern {shlex.join(report.words)} --force")
    notebook.run("%kern attach other.duckdb")
    imported = notebook.run(f"%kern import {report.path}")

    assert sorted(path.name for path in Path().rglob("*.[jp]*")) == names
    assert (again.sessions, again.size) == (report.sessions, report.size)
    assert (imported.errors, imported.sessions, imported.tool_calls) == ([], report.sessions, report.tool_calls)


def test_variables_and_records_can_be_exported(notebook, chats):
    """As in every other verb; another store than the one in use is named."""
    notebook.shell.user_ns["run"] = chats.get_session("alpha").runs[1]
    notebook.shell.user_ns["chat"] = chats.get_session("alps")
    notebook.run("%kern attach other.duckdb")
    report = notebook.run("%kern export $run $chat x.json --store chats")

    assert report.words == ("export", "alpha/1", "alps", "x.json")
    assert kern_nb.export(chats.get_session("alps"), path="y.json", store=chats).sessions == 1


def test_a_read_only_store_can_be_exported(notebook, chats, tmp_path):
    """Nothing is written into it."""
    path = tmp_path / "s.duckdb"
    with DuckDb(path) as store:
        store.append_run("chat", Run(input="x"))
    notebook.run(f"%kern attach {path} --read-only")

    assert notebook.run("%kern export chat x.json").runs == 1
    assert notebook.run("%kern export chat x.html").runs == 1


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("", "the following arguments are required: PATH", "%kern export [REF...] PATH"),
        ("chats.json", "No session or run is named", "--all"),
        ("--all alpha chats.json", "got both", "--all"),
        ("alpha", "must end in .json", "chats.json"),
        ("alpha chats.csv", "must end in .json", "%kern load"),
        ("alpha chats.json --format sts", "needs a path that ends in .jsonl", "chats.jsonl"),
        ("alpha alps chats.json --format atif", "one session, got 2", "a folder"),
        ("alpha chats.json --format aitf", "Unknown format 'aitf'", "atif"),
        ("alpha taken.json --format atif", "exists", "--force"),
        ("alpha chats.jsonl", "must end in .json", "chats.json"),
        ("alpha no/such/chats.json", "does not exist", "Create it first"),
        ("alpha taken.json", "exists", "--force"),
        ("alpha folder.json --force", "is a folder", "Name a file"),
        (f"alpha {'x' * 300}.json", "", ""),
        ("nobody chats.json", "There is no session 'nobody'", "%kern sessions"),
        ("al chats.json", "matches several", "Use more"),
        ("alpha/1.0 chats.json", "is a message", "alpha/1"),
        ("alpha/9 alps chats.json", "has no run 9", "%kern show"),
    ],
)
def test_an_invalid_export_is_refused_in_two_lines(notebook, memory, line, message, hint):
    """With what to do instead; no file is made or changed."""
    for session_id in ("alpha", "alpha", "alps"):
        memory.append_run(session_id, Run(messages=[Message(role="user", content="x")]))
    Path("taken.json").write_text("mine")
    Path("folder.json").mkdir()
    error, lines = notebook.fails(f"%kern export {line}")

    assert isinstance(error, KernError)
    assert len(lines) == 2
    assert message in lines[0]
    assert hint in lines[1]
    assert files() == ["folder.json", "taken.json"]
    assert Path("taken.json").read_text(encoding="utf-8") == "mine"


def test_exporting_an_empty_store_is_refused(notebook, memory):
    """No file is made."""
    error, lines = notebook.fails("%kern export --all x.json")

    assert type(error) is BadUsage
    assert "no sessions" in lines[0]
    assert notebook.fails("%kern export chat x.json")[0].__class__ is SessionNotFound
    assert files() == []


class Stopped(BaseException):
    """As when a kernel is interrupted."""


@pytest.mark.parametrize("suffix", ["json", "html"])
@pytest.mark.parametrize("there", [False, True])
def test_an_interrupted_export_leaves_no_partial_file(notebook, chats, monkeypatch, suffix, there):
    """An interrupt in the middle: no part of a file is left, and a file that was there is as it was."""
    path = f"x.{suffix}"
    if there:
        Path(path).write_text("before")
    first = []

    def read(*args, **options):
        parts = [name for name in files() if name.endswith(".part")]
        first.append(Path(parts[0]).stat().st_size if parts else None)
        if len(first) > 1 and parts:
            raise Stopped
        return original(*args, **options)

    # What is read when the file has been begun.
    name = "read_connection" if suffix == "json" else "get_session"
    original = getattr(chats, name)
    monkeypatch.setattr(chats, name, read)
    with pytest.raises(Stopped):
        kern_nb.export("alpha", "alps", path=path, overwrite=there)

    assert first[-1] is not None
    assert files() == ([path] if there else [])
    assert not there or Path(path).read_text(encoding="utf-8") == "before"


def test_a_file_created_during_the_export_is_kept(notebook, chats, monkeypatch):
    """Who comes second is told; the other's file stays."""
    original = chats.get_session

    def get_session(*args, **options):
        Path("x.html").write_text("another's")
        return original(*args, **options)

    monkeypatch.setattr(chats, "get_session", get_session)
    with pytest.raises(BadUsage, match="exists"):
        kern_nb.export("alpha", path="x.html")

    assert files() == ["x.html"]
    assert Path("x.html").read_text(encoding="utf-8") == "another's"


def test_a_page_shows_the_transcripts_and_executes_nothing(notebook, store):
    """Every text of a session is there to be read, escaped; no script, nothing is fetched, no name breaks out."""
    call = ToolCall(tool_call_id="c", tool_name=HOSTILE[0], args={HOSTILE[1]: HOSTILE[2]}, result=HOSTILE[3])
    messages = [Message(role=text, content=text) for text in HOSTILE]
    messages.append(Message(role="assistant", content=HOSTILE[0], tool_calls=[call]))
    run = Run(input="x", messages=messages, model=HOSTILE[0], error=HOSTILE[1], status="ERROR", agent_id=HOSTILE[2])
    for name in (HOSTILE[0], "plain"):
        store.append_run(name, run.model_copy(update={"run_id": name}))
    store.rename_session("plain", HOSTILE[1])
    report = kern_nb.export(HOSTILE[0], "plain", path="x.html", store=store)
    markup = Path("x.html").read_text(encoding="utf-8")
    page = Page(markup)

    assert (report.format, report.sessions, report.runs, report.messages, report.blobs) == ("page", 2, 2, 14, 0)
    assert page.open == []
    assert not set(page.elements) & {"script", "img", "link", "base", "iframe", "object", "form"}
    assert page.elements.count("style") == page.elements.count("body") == 1
    assert not [name for name in page.attributes if name.startswith("on")]
    assert page.links == ["#s1", "#s2"]
    assert not re.search(r"url\(|@import|https?://", markup)
    assert markup.startswith('<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">')
    assert "default-src 'none'" in markup
    assert "color-scheme: light dark" in markup
    for text in ("<script>alert('x')</script>", "⟨U+202E⟩gnp.exe", "half ⟨U+D83D⟩", "be␀fore"):
        assert page.text.replace("\xa0", " ").count(text) >= 2


def test_a_page_contains_every_run(notebook, store):
    """However many messages there are; of one run it has that run alone."""
    for n in range(60):
        store.append_run("long", Run(messages=[Message(role="user", content=f"<{n}.{i}>") for i in range(5)]))
    report = kern_nb.export("long", path="long.html", store=store)
    page = Page(Path("long.html").read_text(encoding="utf-8"))

    assert report.messages == 300
    assert all(f"<{n}.{i}>" in page.text for n in range(60) for i in range(5))
    kern_nb.export("long/7", path="run.html", store=store)
    text = Page(Path("run.html").read_text(encoding="utf-8")).text
    assert ("<7.4>" in text, "<8.0>" in text) == (True, False)
    assert "long, run 7" in text


def test_sessions_and_files_complete(notebook, chats, monkeypatch):
    """For every word: the last of them is the path."""
    from IPython.core.completer import provisionalcompleter

    from kern_nb.magics import completion_sources

    monkeypatch.setattr(completion_sources, "BUDGET_S", 20)
    monkeypatch.setattr(completion_sources, "_cache", completion_sources.Cache())
    Path("alphabet.json").touch()

    def tab(text):
        with provisionalcompleter():
            return [item.text for item in notebook.shell.Completer.completions(text, len(text))]

    assert tab("%kern export al") == ["alps", "alpha", "alphabet.json"]
    assert tab("%kern export alps alpha") == ["alpha", "alphabet.json"]
    assert tab("%kern export alpha/") == ["alpha/0", "alpha/1", "alpha/2"]
    assert tab("%kern export --") == ["--format", "--all", "--force", "--store"]
    assert tab("%kern export alps x.json --format ") == ["bundle", "page", "atif", "sts", "parquet", "agno"]
    assert tab("%kern exp") == ["export"]


def test_the_counts_match_the_file(notebook, store):
    """What a branch inherits is counted where it is copied, and not where its parent is in the file."""
    store.append_run("chat", Run(messages=[Message(role="user", content="x")]))
    store.branch("chat", new_session_id="branch")

    for names, runs in ((("branch",), 1), (("chat", "branch"), 1), (("chat", "chat/0"), 2)):
        written = kern_nb.export(*names, path="x.json", store=store, overwrite=True)
        read = InMemoryDb().ingest("x.json")
        assert (written.sessions, written.runs, written.messages) == (read.sessions, read.runs, read.messages)
        assert written.runs == runs
