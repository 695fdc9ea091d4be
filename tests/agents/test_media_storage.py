"""Pictures and other files: kept once by their hash, given back to the model later, or (`store_media=False`) kept nowhere."""

from __future__ import annotations

import base64
import hashlib

import pydantic_ai
import pytest
from pydantic_ai import BinaryContent
from pydantic_ai.messages import FilePart, ImageUrl, TextPart
from recording_models import PartsModel, RecordingModel, calls_once, results
from stored_values import columns_with, stored_blobs

from kern_nb import Agent
from kern_nb.agent import tool
from kern_nb.errors import BadUsage, RunFailed
from kern_nb.models.scripted import call

PNG = b"\x89PNG swordfish-in-the-sea"
SECRET = "swordfish-in-the-sea"
HASH = hashlib.sha256(PNG).hexdigest()
DATA_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


@pytest.fixture
def path(tmp_path):
    """A picture in a file."""
    found = tmp_path / "sea.png"
    found.write_bytes(PNG)
    return found


def test_image_is_stored_once(store, path):
    """On every engine: in one run or several, in several sessions, as bytes, path or data URL; by its hash."""
    agent = Agent(PartsModel().model, db=store, session_id="chat")
    agent.run("look", images=[PNG, PNG])
    agent.run("again", images=[path, DATA_URL])
    agent.run("here too", images=PNG, session_id="other")
    run = agent.run(["and", PNG, path])

    assert stored_blobs(store) == [(HASH, len(PNG))]
    assert store.get_blob(HASH).content == PNG
    picture = {"type": "image", "media_type": "image/png", "size": len(PNG), "sha256": HASH}
    assert run.messages[0].content == [{"type": "text", "text": "and"}, picture, picture]


def test_different_bytes_are_different_files(db):
    """Each by its own hash."""
    agent = Agent(PartsModel().model, db=db)
    agent.run("look", images=[PNG, PNG + b"!"], files=[b"text", b""])

    assert sorted(size for _, size in stored_blobs(db)) == [0, 4, len(PNG), len(PNG) + 1]


@pytest.mark.parametrize(
    ("kind", "name", "media_type"),
    [
        ("images", "a.jpg", "image/jpeg"),
        ("audio", "a.mp3", "audio/mpeg"),
        ("videos", "a.mp4", "video/mp4"),
        ("files", "a.pdf", "application/pdf"),
        ("files", "a.csv", "text/csv"),
        ("images", "a", "image/png"),
    ],
)
def test_media_type_is_detected(db, tmp_path, kind, name, media_type):
    """By its name, else by the parameter; now and as history."""
    path = tmp_path / name
    path.write_bytes(PNG)
    model = PartsModel()
    agent = Agent(model.model, db=db, session_id="chat", add_history_to_context=True)
    agent.run("look", **{kind: [str(path)]})
    agent.run("and?")

    assert model.inputs(0) == [["look", BinaryContent(PNG, media_type=media_type)]]
    assert model.inputs(1)[0] == ["look", BinaryContent(PNG, media_type=media_type)]


def test_same_bytes_with_two_media_types(db):
    """What they are stands in the message, not with the bytes."""
    model = PartsModel()
    agent = Agent(model.model, db=db, session_id="chat", add_history_to_context=True)
    agent.run("one", files=[PNG])
    agent.run("two", images=[PNG])
    agent.run("three")

    assert [content[1].media_type for content in model.inputs()[:2]] == ["application/octet-stream", "image/png"]


def test_url_is_stored_and_not_fetched(db):
    """The model's service fetches it."""
    model = PartsModel()
    agent = Agent(model.model, db=db, session_id="chat", add_history_to_context=True)
    run = agent.run("look", images=["https://pictures.invalid/sea.png"])
    agent.run("and?")

    assert run.messages[0].content[1] == {"type": "image", "url": "https://pictures.invalid/sea.png"}
    assert isinstance(model.inputs()[0][1], ImageUrl)
    assert stored_blobs(db) == []


@pytest.mark.parametrize(
    "given",
    [
        *({"images": ["no such.png"]}, {"files": [b"ok", "missing.pdf"]}, {"images": [3]}, {"images": [None]}),
        {"images": 3.5},
    ],
    ids=str,
)
def test_unreadable_file_is_rejected(db, given):
    """By name, and before anything is stored."""
    with pytest.raises(BadUsage):
        Agent(PartsModel().model, db=db, session_id="chat").run("look", **given)

    assert (db.get_session("chat"), stored_blobs(db)) == (None, [])


def test_folder_is_rejected_as_file(db, tmp_path):
    """Said as such."""
    with pytest.raises(BadUsage, match="cannot be read"):
        Agent(PartsModel().model, db=db).run("look", images=[tmp_path])


def test_unstored_files_are_sent_once(db):
    """store_media=False: this run's model sees it, the store never does, and a later one is told that there was one."""
    model = PartsModel()
    agent = Agent(model.model, db=db, session_id="chat", store_media=False, add_history_to_context=True)
    run = agent.run("look", images=[PNG])
    agent.run(["too", PNG])
    agent.run("and?")

    assert model.inputs(0) == [["look", BinaryContent(PNG, media_type="image/png")]]
    assert run.messages[0].content[1] == {"type": "image", "media_type": "image/png", "size": len(PNG)}
    assert (columns_with(db, SECRET), stored_blobs(db)) == ([], [])
    assert f"{len(PNG)} bytes" in model.inputs()[0][1]


def test_unstored_files_stay_unstored_on_failure_and_pause(db):
    """However the run ends."""
    failing = Agent(RecordingModel([ValueError("boom")]), db=db, session_id="chat", store_media=False)
    with pytest.raises(RunFailed):
        failing.run("look", images=[PNG])
    model = calls_once("look")
    agent = Agent(model, db=db, tools=[tool(lambda: 1, name="look", requires_confirmation=True)], store_media=False)
    paused = agent.run("look", images=[PNG])
    db.resolve(paused.requirements[0].requirement_id, approve=True)

    assert agent.continue_run(paused.run_id).output == "done"
    assert (columns_with(db, SECRET), stored_blobs(db)) == ([], [])


def test_resumed_run_has_files(db):
    """Another agent object, as in another process, gives the model the same picture."""

    class Asking(PartsModel):
        def _respond(self, messages, info):
            super()._respond(messages, info)
            first = len(self.seen) == 1
            return call_look() if first else pydantic_ai.ModelResponse(parts=[TextPart("done")])

    def call_look():
        return pydantic_ai.ModelResponse(parts=[pydantic_ai.ToolCallPart("look", {}, "c")])

    model = Asking()
    tools = [tool(lambda: 1, name="look", requires_confirmation=True)]
    paused = Agent(model.model, db=db, session_id="chat", tools=tools).run("see", images=[PNG])
    db.resolve(paused.requirements[0].requirement_id, approve=True)
    Agent(model.model, db=db, session_id="chat", tools=tools).continue_run(paused.run_id)

    assert model.inputs()[0] == ["see", BinaryContent(PNG, media_type="image/png")]


def test_branch_inherits_images(db):
    """Without a copy."""
    model = PartsModel()
    agent = Agent(model.model, db=db, session_id="chat", add_history_to_context=True)
    agent.run("look", images=[PNG])
    db.branch("chat", new_session_id="fork")
    agent.run("and?", session_id="fork")

    assert model.inputs()[0][1].data == PNG
    assert len(stored_blobs(db)) == 1


@pytest.mark.parametrize("keeps", [True, False])
def test_tool_result_image_is_stored(db, keeps):
    """By its hash, once; with store_media=False nowhere. The model is given it either way."""

    def draw() -> BinaryContent:
        return BinaryContent(PNG, media_type="image/png")

    model = calls_once("draw")
    agent = Agent(model, db=db, session_id="chat", tools=[draw], store_media=keeps)
    for _ in range(2):
        run = agent.run("draw")

    assert run.tool_calls[0].status == "completed"
    assert stored_blobs(db) == ([(HASH, len(PNG))] if keeps else [])
    assert [place for place in columns_with(db, SECRET) if not place.endswith("_blobs.content")] == []
    assert run.tool_calls[0].result.get("sha256") == (HASH if keeps else None)
    assert results(model)[0]["media_type"] == "image/png"


@pytest.mark.parametrize("keeps", [True, False])
def test_generated_image_is_stored(db, keeps):
    """Also a response's files lie by their hash."""
    model = PartsModel([TextPart("Here."), FilePart(content=BinaryContent(PNG, media_type="image/png"))])
    agent = Agent(model.model, db=db, session_id="chat", store_media=keeps, add_history_to_context=True)
    for _ in range(2):
        assert agent.run("draw").output == "Here."

    assert stored_blobs(db) == ([(HASH, len(PNG))] if keeps else [])
    assert [place for place in columns_with(db, SECRET) if not place.endswith("_blobs.content")] == []


@pytest.mark.parametrize(
    "record",
    [
        {"type": "document", "size": 3, "title": "Contract"},
        {"type": "image", "url": "https://pictures.invalid/sea.png", "caption": "the sea"},
        {"type": "video", "size": 1, "text": "a film"},
        [{"type": "image", "size": 7, "sha256": "0" * 64}],
    ],
    ids=["a document", "a picture", "a film", "a list"],
)
def test_file_like_tool_data_is_not_a_file(db, record):
    """A tool that lists records gave these records, now and in the history."""

    def find() -> object:
        return record

    first = calls_once("find")
    Agent(first, db=db, session_id="chat", tools=[find]).run("find")
    model = RecordingModel()
    Agent(model, db=db, session_id="chat", add_history_to_context=True).run("and?")

    assert results(first) == [record]
    assert results(model) == [record]


def test_large_file_round_trip(store):
    """On every engine."""
    large = bytes(range(256)) * 8_000
    model = PartsModel()
    agent = Agent(model.model, db=store, session_id="chat", add_history_to_context=True)
    agent.run("read", files=[large])
    agent.run("and?")

    assert model.inputs()[0][1].data == large


def test_scripted_model_receives_files(db):
    """A ScriptedModel sees what was sent, without the bytes."""
    model = RecordingModel([call("look"), "done"])
    Agent(model, db=db, tools=[tool(lambda: 1, name="look")]).run("see", images=[PNG])

    assert model.told[0][0].content[1] == {"type": "image", "media_type": "image/png", "size": len(PNG)}
