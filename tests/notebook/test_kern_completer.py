"""Tab: verbs, options, names of stores, sessions and runs, files; soon or not at all, and never an error."""

from __future__ import annotations

import threading
import time

import pytest
from IPython.core.completer import provisionalcompleter

from kern_nb.db import DuckDb
from kern_nb.ingest.registry import load_importers
from kern_nb.magics import completion_sources
from kern_nb.records import Message, Requirement, Run


@pytest.fixture
def tab(notebook, monkeypatch):
    """What Tab offers at the end of a text, as the texts it would become; a lookup gets all the time it needs."""
    monkeypatch.setattr(completion_sources, "BUDGET_S", 20)
    monkeypatch.setattr(completion_sources, "_cache", completion_sources.Cache())

    def complete(text: str) -> list[str]:
        with provisionalcompleter():
            result = list(notebook.shell.Completer.completions(text, len(text)))
        return [text[: item.start] + item.text for item in result]

    return complete


@pytest.fixture
def shop(notebook, tmp_path):
    """A store in use, with sessions of awkward names."""
    store = DuckDb(tmp_path / "shop.duckdb")
    for name in ("chat", "chat 2", "prod:run@3", "it's", "zoo/1"):
        store.append_run(name, Run(input="x", messages=[Message(role="user", content="x")] * 3))
    store.append_run("chat", Run(input="y"))
    notebook.run("import kern_nb")
    notebook.shell.user_ns["shop"] = store
    notebook.run("kern_nb.attach(shop);")
    return store


def test_verbs_complete_in_order(tab):
    """After `%kern`, the verbs of a line; after a beginning, those that fit; also where the value is assigned."""
    from kern_nb.magics.commands import VERBS

    assert tab("%kern ") == [verb.command for verb in VERBS if not verb.takes_cell]
    assert tab("%%kern ") == ["%%kern run"]
    assert tab("%kern s") == ["%kern stores", "%kern sessions", "%kern show", "%kern summarize"]
    assert tab("df = %kern lo") == ["df = %kern load"]
    assert tab("x = 1\n%kern sh") == ["x = 1\n%kern show"]


def test_options_complete_once(tab):
    """Those of the verb that are not on the line yet."""
    assert tab("%kern branch chat --") == [f"%kern branch chat {o}" for o in ("--as", "--before", "--store")]
    assert tab("%kern branch chat --before --") == [f"%kern branch chat --before {o}" for o in ("--as", "--store")]
    assert tab("%%kern_sql --") == ["%%kern_sql --into", "%%kern_sql --store"]
    assert tab("df = %kern_sql --i") == ["df = %kern_sql --into"]


def test_frames_statuses_and_formats_complete(tab):
    """Frames, statuses and formats, each where it belongs."""
    frames = ["sessions", "runs", "messages", "tool_calls", "scores"]

    assert tab("%kern load ")[:5] == [f"%kern load {frame}" for frame in frames]
    assert tab("%kern sessions --status CO") == ["%kern sessions --status COMPLETED"]
    assert tab("%kern import x.json --format ") == [f"%kern import x.json --format {name}" for name in load_importers()]


def test_lists_of_programs_and_groups_complete(tab, shop):
    """After a comma, those that are not in the list yet."""
    assert tab("%kern import --from cod") == ["%kern import --from codex"]
    assert tab("%kern import --from codex,cl") == ["%kern import --from codex,claude_code"]
    assert "%kern import --from codex,codex" not in tab("%kern import --from codex,co")
    assert tab("%kern import --from tau") == ["%kern import --from tau"]
    assert tab("%kern cost --by model,d") == ["%kern cost --by model,day"]


def test_store_names_complete(tab, notebook, shop):
    """The names of attached stores after use, detach and --store."""
    notebook.run("%kern attach :memory: --as other")

    for line in ("%kern use ", "%kern detach ", "%kern load runs --store ", "%%kern_sql --store "):
        assert tab(line)[:2] == [f"{line}shop", f"{line}other"]


def test_session_ids_complete_with_quotes(tab, shop):
    """Ids with spaces, quotes, colons and slashes complete as one word, quoted where it is needed."""
    assert set(tab("%kern show ch")) == {"%kern show chat", "%kern show 'chat 2'"}
    assert tab("%kern show 'chat ") == ["%kern show 'chat 2'"]
    assert tab('%kern show "chat 2') == ['%kern show "chat 2"']
    assert tab("%kern show prod:r") == ["%kern show prod:run@3"]
    assert tab("%kern load runs --session z") == ["%kern load runs --session zoo/1"]
    assert tab("%kern branch i") == ["""%kern branch 'it'"'"'s'"""]


def test_runs_and_messages_complete_after_slash_and_dot(tab, shop):
    """`chat/` gives its runs, `chat/0.` the messages of run 0."""
    assert tab("%kern show chat/") == ["%kern show chat/0", "%kern show chat/1"]
    assert tab("%kern branch chat/0.") == [f"%kern branch chat/0.{i}" for i in range(3)]
    assert tab("%kern show zoo/1/") == ["%kern show zoo/1/0"]


def test_sessions_complete_from_the_store_option(tab, notebook, shop):
    """`--store` before the cursor decides whose sessions are offered."""
    notebook.run("%kern attach :memory: --as empty")

    assert tab("%kern show ch") == ["%kern show ch"]
    assert "%kern show --store shop chat" in tab("%kern show --store shop ch")


def test_agents_complete(tab, notebook):
    """Their variables after `%%kern run` and `--agent`; where an option narrows rows, their ids."""
    from kern_nb.agent import Agent

    notebook.shell.user_ns |= {"clerk": Agent(id="clerk-1"), "writer": Agent(id="w"), "_hidden": Agent(), "number": 3}

    assert tab("%%kern run ")[:2] == ["%%kern run clerk", "%%kern run writer"]
    assert tab("%%kern run c") == ["%%kern run clerk"]
    assert tab("%kern continue chat --agent w") == ["%kern continue chat --agent writer"]
    assert tab("%kern sessions --agent ")[:2] == ["%kern sessions --agent clerk-1", "%kern sessions --agent w"]
    assert tab("%%kern run clerk --s") == ["%%kern run clerk --session"]
    assert tab("%%kern run nobody") == ["%%kern run nobody"]


def test_the_body_of_a_run_cell_is_not_completed(tab, notebook):
    """In the body of `%%kern run`, no name of Python's is offered."""
    notebook.run("sessions_of_mine = 1")

    assert tab("%%kern run clerk\nsessions_of_m") == ["%%kern run clerk\nsessions_of_m"]
    assert tab("%%kern run clerk\n%kern se") == ["%%kern run clerk\n%kern se"]


def test_requirements_complete(tab, shop):
    """The beginning of the id of each that waits, its whole id where more is written; sessions to hand over, too."""
    run = shop.start_run("chat", input="x")
    ids = ["0a000000-1111", "0b000000-2222"]
    shop.pause_run(run.run_id, [Requirement(kind="confirmation", requirement_id=item) for item in ids])
    done = shop.start_run("chat", input="x")
    shop.pause_run(done.run_id, [Requirement(kind="confirmation", requirement_id="0c000000-3333")])
    shop.resolve("0c000000-3333", approve=True)

    for verb in ("approve", "reject", "answer", "handoff"):
        assert tab(f"%kern {verb} 0") == [f"%kern {verb} 0a000000", f"%kern {verb} 0b000000"]
    assert tab("%kern approve 0a000000-1") == ["%kern approve 0a000000-1111"]
    assert tab("%kern approve 0c") == ["%kern approve 0c"]
    assert tab("%kern handoff chat/") == [f"%kern handoff chat/{index}" for index in range(4)]
    assert tab("%kern continue ")[0] == "%kern continue chat"
    assert tab("%kern continue chat/2") == ["%kern continue chat/2"]
    assert tab("%kern inbox --session z") == ["%kern inbox --session zoo/1"]


def test_files_complete_after_attach_and_import(tab, tmp_path):
    """Files and folders, hidden ones only where asked for."""
    work = tmp_path / "work"
    (work / "my data").mkdir()
    (work / "my data" / "a b.json").touch()
    (work / "sessions.duckdb").touch()
    (work / ".hidden").touch()

    assert tab("%kern attach se") == ["%kern attach sessions.duckdb"]
    assert tab("%kern import ")[:2] == ["%kern import 'my data/'", "%kern import sessions.duckdb"]
    assert tab("%kern import 'my data/") == ["%kern import 'my data/a b.json'"]
    assert tab("%kern import x.json se") == ["%kern import x.json sessions.duckdb"]
    assert tab("%kern attach .h") == ["%kern attach .hidden"]
    assert tab(f"%kern attach {work}/se") == [f"%kern attach {work}/sessions.duckdb"]


def test_views_and_columns_complete_in_sql(tab):
    """In the body of `%%kern_sql`."""
    assert tab("%%kern_sql\nSELECT n_tool_e") == ["%%kern_sql\nSELECT n_tool_errors"]
    assert "%%kern_sql\nSELECT *\nFROM messages" in tab("%%kern_sql\nSELECT *\nFROM mess")


def test_completion_outside_the_magics_is_unchanged(tab, notebook):
    """Python completes as ever."""
    notebook.run("sessions_of_mine = 1")

    assert tab("sessions_of_m") == ["sessions_of_mine"]


@pytest.mark.parametrize(
    "text", ["%kern nop", "%kern nope x", "%kern show x/", "%kern show '", "%kern import /nowhere/x", "%kern use x"]
)
def test_without_candidates_the_typed_word_stays(tab, capsys, text):
    """No store, no such verb, folder or session: the word itself is offered, and nothing is printed."""
    assert tab(text) == [text]
    assert capsys.readouterr().err == ""


def test_completion_does_not_block_on_a_slow_store(notebook, shop, monkeypatch):
    """Tab returns within the budget; the answer is there the next time."""
    monkeypatch.setattr(completion_sources, "_cache", completion_sources.Cache())
    quick = shop.list_sessions

    may_answer = threading.Event()

    def slow(**filters: object) -> object:
        may_answer.wait()
        return quick(**filters)

    monkeypatch.setattr(shop, "list_sessions", slow)

    assert completion_sources.sessions("", None) == []

    may_answer.set()
    until = time.monotonic() + 20
    while "chat" not in (result := completion_sources.sessions("", None)) and time.monotonic() < until:
        time.sleep(0.05)
    assert "chat" in result


def test_a_failing_store_completes_nothing(notebook, shop, monkeypatch, capsys):
    """An error is not shown where nobody asked for anything."""
    monkeypatch.setattr(completion_sources, "_cache", completion_sources.Cache())

    def fail(**_: object) -> object:
        raise RuntimeError("gone")

    monkeypatch.setattr(shop, "list_sessions", fail)

    assert completion_sources.sessions("", None) == []
    assert capsys.readouterr().err == ""
