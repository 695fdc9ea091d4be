"""`search_past_sessions`: a model searches the earlier sessions of the run's own user, and never another user's."""

from __future__ import annotations

import json

import pytest
from recording_models import RecordingModel, calls_once, results

from kern_nb import Agent
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Message, Run, ToolCall

SECRET = "the password is swordfish"


def tell(db, user_id, session_id, text=SECRET):
    """Let a user say something in a session of theirs."""
    Agent(RecordingModel(["noted"]), db=db).run(text, session_id=session_id, user_id=user_id)


def search(db, user_id, query="swordfish", session_id="now", **options):
    """What a model that searches in a new session of a user is told: (session, role, content) of each find."""
    model = calls_once("search_past_sessions", query=query)
    Agent(model, db=db, search_past_sessions=True, **options).run("search", session_id=session_id, user_id=user_id)
    return [(line["session"], line["role"], line["content"]) for line in json.loads(results(model)[0])]


def test_other_users_sessions_are_hidden(store):
    """On every engine: neither by a user nor by nobody, whatever is asked for; each finds their own."""
    for user in ("alice", "bob", None):
        tell(store, user, f"of {user}", f"{user}: {SECRET}")

    for user in ("alice", "bob", None):
        assert search(store, user, session_id=f"{user} now") == [(f"of {user}", "user", f"{user}: {SECRET}")]
    assert search(store, "carol") == []


def test_user_names_are_matched_exactly(db):
    """Names are compared whole, case and all."""
    for user in ("alice2", "Alice", "lice", "a%"):
        tell(db, user, f"of {user}")

    assert search(db, "alice") == []
    assert search(db, "%", session_id="2") == []


def test_sessions_without_owner_are_searched(db):
    """num_past_sessions_to_search counts the sessions that may be seen."""
    tell(db, None, "mine")
    for n in range(4):
        tell(db, "bob", f"bob {n}")

    assert search(db, None, num_past_sessions_to_search=2) == [("mine", "user", SECRET)]


def test_current_session_is_not_searched(db):
    """Its own history is another tool's business."""
    tell(db, "alice", "earlier")
    tell(db, "alice", "now")

    assert search(db, "alice", session_id="now") == [("earlier", "user", SECRET)]


def test_search_needs_all_words_in_any_order(db):
    """Answers are searched like questions."""
    tell(db, "alice", "one", "Paris has 2 million people")
    tell(db, "alice", "two", "Paris is in France")

    assert search(db, "alice", "PEOPLE paris") == [("one", "user", "Paris has 2 million people")]
    assert search(db, "alice", "paris people france", session_id="2") == []
    assert {session for session, *_ in search(db, "alice", "noted", session_id="3")} == {"one", "two"}


@pytest.mark.parametrize("query", ["%", "_", "*"])
def test_signs_of_patterns_have_no_matches(db, query):
    """Signs of LIKE and of globs are letters like others."""
    tell(db, "alice", "one")

    assert search(db, "alice", query) == []


@pytest.mark.parametrize(("most", "found"), [(1, ["s3"]), (2, ["s3", "s2"]), (10, ["s3", "s2", "s1", "s0"])])
def test_search_limits_sessions(db, most, found):
    """num_past_sessions_to_search, newest first; the session at hand does not count."""
    for n in range(4):
        tell(db, "alice", f"s{n}")
        session = db.get_session(f"s{n}", runs=False)
        session.created_at = 1_000 + n
        db.save_session(session)

    assert [session for session, *_ in search(db, "alice", num_past_sessions_to_search=most)] == found


def test_search_includes_inherited_messages(db):
    """A branch of one's own is a session of one's own."""
    tell(db, "alice", "main")
    db.branch("main", new_session_id="fork")

    assert {session for session, *_ in search(db, "alice")} == {"main", "fork"}


def test_search_excludes_runs_without_answer(db):
    """What is not told as history is not found either."""
    said = [Message(role="user", content=SECRET), Message(role="assistant", content="noted")]
    db.append_run("failed", Run(user_id="alice", status="ERROR", messages=said))

    assert search(db, "alice") == []


def test_search_matches_hostile_text(db):
    """NUL, lone surrogates and parts are searched like other text; of a long one an excerpt is shown."""
    tell(db, "alice", "odd", "needle \x00 \ud800")
    parts = [{"type": "text", "text": "needle in parts"}, {"type": "image", "url": "https://x.test/y.png"}]
    calls = [ToolCall(tool_call_id="c", tool_name="t", args={})]
    messages = [Message(role="user", content=parts), Message(role="assistant", content="needle", tool_calls=calls)]
    db.append_run("parts", Run(user_id="alice", messages=[*messages, Message(role="tool", tool_call_id="c", content={"needle": 1})]))  # fmt: skip
    tell(db, "alice", "long", "needle" + "x" * 1_000_000)

    found = {session: content for session, _, content in search(db, "alice", "needle") if session != "parts"}
    assert found["odd"].startswith("needle")
    assert found["long"].startswith("needlexxx")
    assert len(found["long"]) < 10_000


def test_both_history_tools_together(db):
    """Reading the chat's history and searching other sessions go together, also with the history in the context."""
    tell(db, "alice", "earlier")
    model = RecordingModel([[call("get_chat_history"), call("search_past_sessions", query="swordfish")], "done"])
    options = {"read_chat_history": True, "search_past_sessions": True, "add_history_to_context": True}
    run = Agent(model, db=db, user_id="alice", session_id="now", **options).run("both")

    assert run.output == "done"
    assert [] in [json.loads(result) for result in results(model)]


def test_past_sessions_are_listed_and_read(db):
    """Without a query: previews of the first runs; a whole session by its id. Only the user's own."""
    for user, session_id, text in (("alice", "one", "Hello"), ("alice", "one", "Again"), ("bob", "two", "Secret")):
        Agent(ScriptedModel(["noted"]), db=db, session_id=session_id, user_id=user).run(text)
    calls = [call("search_past_sessions"), call("read_past_session", session_id="one"), "done"]
    calls[1:1] = [call("read_past_session", session_id="two"), call("read_past_session", session_id="one", num_runs=1)]
    model = RecordingModel(calls)
    options = {"search_past_sessions": True, "num_past_session_runs_in_search": 1}
    Agent(model, db=db, session_id="now", user_id="alice", **options).run("What did I say?")

    listed, other, first, whole = results(model)
    assert [(s["session_id"], s["runs"]) for s in json.loads(listed)] == [
        ("one", [{"user": "Hello", "assistant": "noted"}])
    ]
    assert "Secret" not in listed + other
    assert [line["content"] for line in json.loads(first)] == ["Hello", "noted"]
    assert [line["content"] for line in json.loads(whole)] == ["Hello", "noted", "Again", "noted"]
