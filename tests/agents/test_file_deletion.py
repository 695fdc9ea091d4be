"""The files of a deleted session are gone, and those that anything else still shows are kept."""

from __future__ import annotations

import hashlib

from pydantic_ai import BinaryContent
from pydantic_ai.messages import FilePart, TextPart
from recording_models import PartsModel, RecordingModel, calls_once
from stored_values import stored_blobs

from kern_nb import Agent
from kern_nb.agent import RunContext
from kern_nb.models.scripted import call

PNG = b"\x89PNG the sea"
HASH = hashlib.sha256(PNG).hexdigest()


def test_deleting_session_deletes_its_files(store):
    """On every engine: files that no session has any more are gone, those that another one has are kept."""
    agent = Agent(PartsModel().model, db=store)
    agent.run("look", images=[PNG, PNG + b"!"], session_id="a")
    agent.run("look", images=[PNG], session_id="b")
    agent.delete_session("a")
    store.check(repair=True)

    assert stored_blobs(store) == [(HASH, len(PNG))]


def test_delete_keeps_file_of_active_run(db):
    """The same bytes in a session that is deleted at that moment."""
    Agent(PartsModel().model, db=db, session_id="old").run("look", images=[PNG])

    def write(run_context: RunContext) -> None:
        run_context.workspace.write("sea.png", PNG)
        run_context.store.delete_session("old")

    agent = Agent(calls_once("write"), db=db, session_id="new", tools=[write])
    agent.run("x")

    assert agent.get_workspace().read_bytes("sea.png") == PNG


def test_delete_keeps_referenced_files(db):
    """A branch, an earlier run's state, a model's own picture: whatever still shows it, when another session goes."""
    made = PartsModel([TextPart("Here."), FilePart(content=BinaryContent(PNG, media_type="image/png"))])
    Agent(made.model, db=db, session_id="made").run("draw")

    def write(run_context: RunContext) -> None:
        run_context.workspace.write("sea.png", PNG + b"!")

    def remove(run_context: RunContext) -> None:
        run_context.workspace.delete("sea.png")

    model = RecordingModel([call("write"), "done", call("remove"), "done"])
    agent = Agent(model, db=db, session_id="files", tools=[write, remove])
    agent.run("write")
    agent.run("remove")
    other = Agent(PartsModel().model, db=db, session_id="other")
    other.run("look", images=[PNG, PNG + b"!"])
    other.delete_session()

    assert sorted(size for _, size in stored_blobs(db)) == [len(PNG), len(PNG) + 1]
    branch = db.branch("files", after=0)
    assert agent.get_workspace(branch.session_id).read_bytes("sea.png") == PNG + b"!"
