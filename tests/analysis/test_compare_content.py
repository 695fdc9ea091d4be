"""What makes two messages, or two calls, the same: files too, and whether a call failed; instructions told again do not."""

from __future__ import annotations

import pytest

from kern_nb import Agent
from kern_nb.analysis.compare import compare
from kern_nb.models.scripted import ScriptedModel
from kern_nb.records import Message, Run, ToolCall


def picture(*, sha256: str = "", url: str = "") -> dict[str, object]:
    """A part of a message: a file in the store, or one elsewhere."""
    if sha256:
        return {"type": "image", "media_type": "image/png", "size": 67, "sha256": sha256}
    return {"type": "image_url", "image_url": {"url": url}}


def asked(store, session_id: str, *parts: object) -> None:
    """Keep a session in which somebody shows something, and hears the same of it."""
    said = [Message(role="user", content=["What is this?", *parts]), Message(role="assistant", content="A mug.")]
    store.append_run(session_id, Run(messages=said))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (picture(sha256="a" * 64), picture(sha256="b" * 64)),
        (picture(url="data:image/png;base64,AAAA"), picture(url="data:image/png;base64,BBBB")),
        (picture(url="https://a.example/1.png"), picture(url="https://a.example/2.png")),
    ],
)
def test_messages_that_differ_in_an_image_are_changed(store, one, other):
    """By its bytes or its address, none of which is fetched; the same picture is the same."""
    for name, part in (("a", one), ("again", one), ("b", other)):
        asked(store, name, part)
    found = compare("a", "b", store=store)

    assert compare("a", "again", store=store).divergence is None
    assert (found.divergence.a, found.divergence.b) == ("a/0.0", "b/0.0")
    assert found.turns["status"].tolist() == ["changed", "matched"]
    text, others = found.divergence.a_text, found.divergence.b_text
    assert text.splitlines()[0] == others.splitlines()[0] == "What is this?"
    assert text.splitlines()[1].startswith("[image")
    assert text.splitlines()[1] != others.splitlines()[1]


def test_image_is_displayed_as_text(store):
    """What kind of file it is, and how its hash begins; with every style stripped, too."""
    asked(store, "a", picture(sha256="a" * 64))
    asked(store, "b")
    found = compare("a", "b", store=store)

    assert "[image/png aaaaaaaaaaaa]" in found.divergence.a_text
    for shown in (repr(found), found._repr_html_()):
        assert "image/png" in shown


def test_list_of_records_has_no_files(store):
    """It is said as JSON, and as nothing else."""
    rows = [{"id": 1, "price": 2.5}, {"id": 2, "price": None}]
    for name in ("a", "b"):
        store.append_run(name, Run(messages=[Message(role="assistant", content=[*rows, {"id": name}])]))

    assert (
        compare("a", "b", store=store).divergence.a_text
        == '[{"id": 1, "price": 2.5}, {"id": 2, "price": null}, {"id": "a"}]'
    )


def test_inherited_image_is_shared(store):
    """It is the same row."""
    asked(store, "a", picture(sha256="a" * 64))
    store.branch("a", new_session_id="b")
    found = compare("a", "b", store=store)

    assert found.divergence is None
    assert found.turns["shared"].all()


def test_failed_and_completed_calls_differ(store):
    """Though the tool, its arguments and the text that came back are the same."""
    for name, status in (("a", "completed"), ("b", "failed"), ("c", "failed")):
        call = ToolCall(tool_call_id="c", tool_name="pay", args={"n": 1}, status=status, result="42")
        store.append_run(name, Run(messages=[Message(role="assistant", tool_calls=[call])]))
    found = compare("a", "b", store=store)

    assert found.tool_calls[["status", "a_status", "b_status"]].values.tolist() == [["changed", "completed", "failed"]]
    assert "✗ {" in found._repr_html_()
    assert compare("b", "c", store=store).tool_calls["status"].tolist() == ["matched"]


def test_repeated_instructions_are_not_turns(store):
    """Each run of an agent begins with them; only new ones are something that is said."""
    brief = Agent(ScriptedModel(["Hello.", "Bye."]), db=store, id="clerk", instructions="Be brief.")
    brief.run("Hi", session_id="a")
    store.branch("a", new_session_id="b")
    brief.run("Bye", session_id="a")
    Agent(ScriptedModel(["Bye."]), db=store, id="clerk", instructions="Be kind.").run("Bye", session_id="b")
    found = compare("a", "b", store=store)

    assert found.turns["role"].tolist() == ["system", "user", "assistant", "system", "user", "assistant"]
    assert found.turns["status"].tolist() == ["matched"] * 3 + ["only in b", "matched", "matched"]
    assert found.metrics.set_index("metric").loc["n_messages", ["a", "b"]].tolist() == [6, 6]
