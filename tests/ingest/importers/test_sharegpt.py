"""Training data is read as conversations: ShareGPT, prompts with completions, preferences, Alpaca."""

from __future__ import annotations

import json

import pytest
from mutations import mistyped, torn, truncated

from kern_nb.db import SqliteDb
from kern_nb.ingest.importers.chat import Chat
from kern_nb.ingest.importers.openai_batch import OpenAIBatch
from kern_nb.ingest.importers.sharegpt import ShareGPT
from kern_nb.ingest.source import Source

USER, YES, NO = ({"role": r, "content": c} for r, c in (("user", "Open?"), ("assistant", "Yes."), ("assistant", "No.")))


def turn(speaker, value):
    return {"from": speaker, "value": value}


@pytest.fixture
def read(tmp_path):
    """Write records as lines of a file and return its drafts; no other importer takes it."""

    def write(*records, name="data.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        source = Source(path, name)
        assert ShareGPT().recognizes(source)
        assert not any(kind().recognizes(source) for kind in (Chat, OpenAIBatch))
        return list(ShareGPT().read(source))

    return write


def talk(draft):
    return [(m.role, m.content) for run in draft.runs for m in run.messages]


def test_turns(read):
    """Speakers become roles; a call and its result are joined in order."""
    call = json.dumps({"name": "hours", "arguments": {"day": "mon"}})
    turns = [
        turn("system", "Be brief."), turn("human", "Open?"), turn("function_call", call), turn("observation", "9-17"),
        turn("gpt", "At nine."), turn("human", "Sure?"), turn("chatgpt", "Yes."),
    ]  # fmt: skip
    record = {"id": "x", "conversations": turns, "source": "web"}
    for records in ([record], [[record, {"conversations": turns[1:2]}]]):
        draft = read(*records)[0]

        assert [role for role, _ in talk(draft)] == [
            "system",
            "user",
            "assistant",
            "tool",
            "assistant",
            "user",
            "assistant",
        ]
        [call] = draft.runs[0].messages[2].tool_calls
        assert (call.tool_name, call.args, call.status) == ("hours", {"day": "mon"}, "completed")
        assert (draft.session_id, draft.session.metadata["source"]) == ("x", "web")
        assert [run.output for run in draft.runs] == ["At nine.", "Yes."]


def test_calls_in_tags_and_calls_that_are_no_json(read):
    """The text stays what it is."""
    tagged = 'Look.\n<tool_call>\n{"name": "hours", "arguments": {}}\n</tool_call>'
    [draft] = read(
        {"conversations": [turn("human", "q"), turn("gpt", tagged), turn("tool", "9"), turn("function_call", "{x")]}
    )
    messages = draft.runs[0].messages

    assert messages[1].content == tagged
    assert messages[1].tool_calls[0].status == "completed"
    assert messages[3].content == "{x"


@pytest.mark.parametrize(
    ("record", "lines"),
    [
        ({"prompt": "Open?", "completion": "Yes."}, [["Open?", "Yes."]]),
        ({"prompt": [USER], "completion": [YES], "label": True}, [["Open?", "Yes."]]),
        ({"prompt": "Open?", "chosen": "Yes.", "rejected": "No."}, [["Open?", "Yes."], ["Open?", "No."]]),
        ({"prompt": [USER], "chosen": [YES], "rejected": [NO]}, [["Open?", "Yes."], ["Open?", "No."]]),
        ({"chosen": [USER, YES], "rejected": [USER, NO]}, [["Open?", "Yes."], ["Open?", "No."]]),
        (
            {"prompt": "Open?", "chosen": [USER, YES], "rejected": [USER, NO], "messages": [USER, YES]},
            [["Open?", "Yes."], ["Open?", "No."]],
        ),
        (
            {"chosen": "\n\nHuman: Open?\n\nAssistant: Yes.", "rejected": "\n\nHuman: Open?\n\nAssistant: No."},
            [["Open?", "Yes."], ["Open?", "No."]],
        ),
        (
            {"conversations": [turn("human", "Open?")], "chosen": turn("gpt", "Yes."), "rejected": turn("gpt", "No.")},
            [["Open?", "Yes."], ["Open?", "No."]],
        ),
        (
            {"input": {"messages": [USER]}, "preferred_output": [YES], "non_preferred_output": [NO]},
            [["Open?", "Yes."], ["Open?", "No."]],
        ),
        ({"instruction": "Open?", "input": "", "output": "Yes."}, [["Open?", "Yes."]]),
        ({"instruction": "Open", "input": "today?", "output": "Yes."}, [["Open\ntoday?", "Yes."]]),
        (
            {"instruction": "Sure?", "output": "Yes.", "history": [["Open?", "No."]], "system": "S"},
            [["S", "Open?", "No.", "Sure?", "Yes."]],
        ),
    ],
)
def test_prompts_with_answers(read, record, lines):
    """The chosen answer is the main line, the rejected one a further line of the same session."""
    drafts = read(record)

    assert [[text for _, text in talk(draft)] for draft in drafts] == lines
    assert {draft.session_id for draft in drafts} == {"data-1"}
    assert drafts[0].keys[0][0] == drafts[-1].keys[0][0]
    if len(drafts) > 1:
        assert [draft.session.metadata["preference"] for draft in drafts] == ["chosen", "rejected"]


@pytest.mark.parametrize(
    "record", [{"instruction": "x"}, {"conversations": []}, {"prompt": "x"}, {"input": 1, "output": "x"}]
)
def test_other_records_are_not_taken(tmp_path, record):
    """An instruction without an output, a prompt without an answer."""
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(record))

    assert not ShareGPT().recognizes(Source(path, path.name))


def test_stored_twice(tmp_path):
    """The second import stores nothing."""
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"conversations": [turn("human", "Open?"), turn("gpt", "Yes.")]}))
    store = SqliteDb(str(tmp_path / "s.db"))
    first, second = (store.ingest(path, progress=False) for _ in range(2))

    assert (first.sessions, first.runs, first.messages) == (1, 1, 2)
    assert (second.sessions, second.runs) == (0, 0)


def test_a_preference_in_a_store(tmp_path):
    """The rejected answer is a branch after the prompt; two equal answers are one."""
    path = tmp_path / "data.jsonl"
    records = [
        {"id": "a", "prompt": [USER], "chosen": [YES], "rejected": [NO], "score_chosen": 0.75, "score_rejected": 0.25},
        {"id": "b", "prompt": [USER], "chosen": [YES], "rejected": [YES]},
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    store = SqliteDb(str(tmp_path / "s.db"))
    first, second = (store.ingest(path, progress=False) for _ in range(2))

    assert (first.sessions, first.branches, first.errors) == (3, 1, [])
    assert (second.sessions, second.runs, second.errors) == (0, 0, [])
    assert store.get_session("a").runs[-1].output == "Yes."
    scores = store.scores_df()
    assert sorted(zip(scores["name"], scores["value"], strict=True)) == [("score", 0.25), ("score", 0.75)]


def test_damaged_files(tmp_path):
    """Nothing raises, and a good record beside a bad one is imported."""
    good = {"id": "good", "conversations": [turn("human", "Open?"), turn("gpt", "Yes.")]}
    records = [
        {"conversations": [turn("human", "q"), turn("function_call", '{"name": "f"}'), turn("observation", "x")]},
        {"prompt": [USER], "chosen": [YES], "rejected": [NO], "system": "s", "model": "m"},
        {"instruction": "a", "input": "b", "output": "c", "history": [["d", "e"]]},
    ]
    for kind, original in enumerate(records):
        for number, bad in enumerate(mistyped(original, 100)):
            path = tmp_path / f"typed{kind}-{number}.jsonl"
            path.write_text("\n".join(map(json.dumps, (bad, good))))
            source = Source(path, path.name)
            ShareGPT().recognizes(source)
            assert "good" in [getattr(item, "session_id", "") for item in ShareGPT().read(source)]
    data = "\n".join(map(json.dumps, (good, *records))).encode()
    for number, part in enumerate([*truncated(data, 50), *torn(data, 50)]):
        path = tmp_path / f"torn{number}.jsonl"
        path.write_bytes(part)
        source = Source(path, path.name)
        ShareGPT().recognizes(source)
        list(ShareGPT().read(source))
