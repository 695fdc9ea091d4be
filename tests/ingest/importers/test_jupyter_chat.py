"""Chats of Jupyter AI: people and bots, deleted messages, attachments."""

from __future__ import annotations

import json

import pytest
from draft_reader import expected, import_twice, inputs, messages, read, recognized_by, roles, write
from mutations import mistyped, torn, truncated


@pytest.fixture
def importer():
    from kern_nb.ingest.importers.jupyter_chat import JupyterChat

    return JupyterChat()


def message(number, sender, body, **fields):
    base = {"type": "msg", "id": f"m{number}", "body": body, "sender": sender, "time": 1700000000.5 + number}
    return base | {"mentions": []} | fields


def user(name, *, bot=False):
    return {"username": name, "name": name.title(), "display_name": name.title(), "avatar_url": None, "bot": bot}


CHAT = {
    "messages": [
        message(1, "ann", "Which shelf?", attachments=["a1"]),
        message(2, "helper", "The third."),
        message(3, "bob", "", deleted=True),
        message(4, "jupyter-ai-personas::p::P", "Hello", metadata={"model": "m"}),
        message(5, "helper", "Hello", edited=True),
        message(6, "ann", "Thanks", raw_time=True),
    ],
    "users": {"ann": user("ann"), "bob": user("bob"), "helper": user("helper", bot=True)},
    "attachments": {"a1": {"type": "file", "value": "a.ipynb"}},
    "metadata": {"id": "chat-1"},
}


def test_a_chat(importer, tmp_path):
    path = write(tmp_path, "x.chat", CHAT)
    assert recognized_by(path) == "jupyter_chat"
    [draft], problems = read(importer, path)
    assert (problems, draft.session_id) == ([], "chat-1")
    assert roles(draft) == [["user", "assistant"], ["user", "assistant", "assistant"], ["user"]]
    assert inputs(draft) == ["Which shelf?", None, "Thanks"]
    assert [(run.user_id, run.agent_id) for run in draft.runs] == [("ann", "helper"), ("bob", None), ("ann", None)]
    first, _, deleted, persona, edited, _ = messages(draft)
    assert first.extra["attachments"] == [{"type": "file", "value": "a.ipynb"}]
    assert (deleted.content, deleted.extra["deleted"]) == (None, True)
    assert (persona.extra["metadata"], edited.extra["edited"]) == ({"model": "m"}, True)
    assert first.created_at.isoformat() == "2023-11-14T22:13:21.500000+00:00"
    assert (draft.session.agent_id, draft.session.user_id) == (None, None)
    import_twice(tmp_path, path)


def test_model_and_usage_of_an_answer(importer, tmp_path):
    """If the metadata of its message states them."""
    details = {"model": "m", "cost": 0.5, "usage": {"input_tokens": 7, "output_tokens": 2}}
    talk = [message(1, "ann", "Hi"), message(2, "helper", "Yes", metadata=details)]
    [draft], _ = read(importer, write(tmp_path, "x.chat", CHAT | {"messages": talk}))

    answer = draft.runs[0].messages[1]
    assert (answer.model, answer.usage.input_tokens, answer.usage.cost) == ("m", 7, 0.5)
    assert answer.extra["metadata"] == details


def test_the_path_is_the_id_and_a_chat_grows(importer, tmp_path):
    from kern_nb.db import SqliteDb

    store = SqliteDb(tmp_path / "s.db")
    for n in (1, 2, 6):
        write(tmp_path, "chats/a/x.chat", CHAT | {"messages": CHAT["messages"][:n], "metadata": {}})
        assert store.ingest(tmp_path / "chats", progress=False).errors == []
    assert store.sessions_df()["session_id"].tolist() == ["a/x"]
    assert len(store.runs_df()) == 3


def test_an_old_sender_and_rich_output(importer, tmp_path):
    old = message(1, user("ann"), "Hi")
    rich = message(2, "helper", "", mime_model={"data": {"text/plain": "42"}})
    [draft], _ = read(importer, write(tmp_path, "x.chat", CHAT | {"messages": [old, rich]}))
    assert (draft.runs[0].input, draft.runs[0].output, draft.runs[0].user_id) == ("Hi", "42", "ann")


def test_neighbouring_layouts_are_not_recognized(importer, tmp_path):
    others = (
        {"messages": [], "users": {}, "attachments": {}, "metadata": {}},
        {"messages": [{"role": "user", "content": "x"}], "users": {}},
        {"messages": [{"sender": "x", "body": "y"}]},
    )
    for number, value in enumerate(others):
        assert recognized_by(write(tmp_path, f"{number}.chat", value)) != "jupyter_chat"


def test_damaged_files_raise_nothing(importer, tmp_path):
    data = json.dumps(CHAT, indent=1).encode()
    for damaged in (*truncated(data, 50), *torn(data, 50)):
        read(importer, write(tmp_path, "x.chat", damaged))
    for changed in mistyped(CHAT, 300):
        read(importer, write(tmp_path, "x.chat", changed))
    broken = CHAT | {"messages": [CHAT["messages"][0], 5, {"sender": "ann"}, CHAT["messages"][1]]}
    [draft], problems = read(importer, write(tmp_path, "x.chat", broken))
    assert (roles(draft), len(problems)) == ([["user", "assistant"]], 2)


def test_the_sample_has_the_expected_figures(importer, shared_data, tmp_path):
    figures = expected(shared_data, "jupyter_chat/example.chat")
    store = import_twice(tmp_path, shared_data / "jupyter_chat" / "example.chat")
    assert store.sessions_df()["session_id"].tolist() == ["example"]
    assert len(store.runs_df()) == figures["runs"]
    stored = store.messages_df()
    assert stored["role"].value_counts().to_dict() == figures["messages_by_role"]
    assert stored["created_at"].min().isoformat(timespec="milliseconds") == figures["first_ts"].replace("Z", "+00:00")
