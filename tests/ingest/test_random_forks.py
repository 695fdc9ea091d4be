"""Random families of sessions: forks, forks of forks, copies and checkpoints that end anywhere, in any order of import.

What is expected is counted from the plan of the family, without the importers.
"""

from __future__ import annotations

import random

import pytest
import small_files

from kern_nb.db import SqliteDb

N_INPUT = 123
"""The input tokens of each answer, with cached ones."""


def plan_family(rng):
    """Sessions by id, each a list of records: a key, what it is, a text or the id of a call."""
    sessions, n = {}, 0
    for number in range(rng.randint(2, 5)):
        records = []
        if sessions and rng.random() < 0.75:
            parent = sessions[rng.choice(list(sessions))]
            records = parent[: rng.randint(1, len(parent))]
        for _ in range(rng.randint(0 if records else 1, 3)):
            n += 1
            records = [*records, (f"k{n}", "prompt", rng.choice(["go on", "yes", f"text {n}"]))]
            for _ in range(rng.randint(0, 2)):
                n += 1
                records = [*records, (f"k{n}", "call", f"c{n}")]
                records += [(f"k{n}r", "result", f"c{n}")] * (rng.random() < 0.9)
            if rng.random() < 0.9:
                n += 1
                records = [*records, (f"k{n}", "answer", f"answer {n}")]
        if not any(kind in ("answer", "call") for _, kind, _ in records):  # else no file of messages
            n += 1
            records = [*records, (f"k{n}", "answer", f"answer {n}")]
        sessions[f"5e55104e-0000-4000-8000-{number:012}"] = records
    return sessions


def stamp(records):
    """Times by position: those of copied records are equal."""
    for i, record in enumerate(records):
        record["timestamp"] = f"2026-05-01T10:{i // 60:02}:{i % 60:02}.000Z"
        if "timestamp" in record.get("message", {}):
            record["message"]["timestamp"] = 1_777_000_000_000 + i


def to_claude_code(session_id, records):
    transcript = small_files.claude_code.Transcript(session_id)
    for key, kind, text in records:
        match kind:
            case "prompt":
                transcript.user(key, text)
            case "call":
                transcript.answer(key, f"m{key}", small_files.claude_code.call(text))
            case "result":
                transcript.result(key, text, f"result {text}")
            case _:
                transcript.answer(key, f"m{key}", text)
    stamp(transcript.records)
    return transcript.text()


def to_pi(session_id, records):
    recording = small_files.pi.Recording(session_id)
    for key, kind, text in records:
        match kind:
            case "prompt":
                recording.user(text, key=key)
            case "call":
                recording.answer(small_files.pi.call(text), key=key, stop="toolUse")
            case "result":
                recording.result(text, f"result {text}", key=key)
            case _:
                recording.answer(text, key=key)
    stamp(recording.records)
    return recording.text()


def texts(session):
    """What is said in a session, None for a call."""
    contents = [message.content for run in session.runs for message in run.messages]
    joined = ["".join(p["text"] for p in content) if isinstance(content, list) else content for content in contents]
    return [text or None for text in joined]


@pytest.mark.parametrize("seed", [*range(12), 13, 29, 36, 39, 40])
@pytest.mark.parametrize("write", [to_claude_code, to_pi])
def test_each_record_of_a_family_is_stored_once(tmp_path, write, seed):
    rng = random.Random(seed)
    family = plan_family(rng)
    files = [tmp_path / f"{session_id}.jsonl" for session_id in family]
    for path, (session_id, records) in zip(files, family.items(), strict=True):
        path.write_text(write(session_id, records))
    is_folder = rng.random() < 0.3
    rng.shuffle(files)
    kinds = {key: kind for records in family.values() for key, kind, _ in records}
    n_answers = sum(kind in ("call", "answer") for kind in kinds.values())

    with SqliteDb(tmp_path / "store.db") as store:
        for path in [tmp_path] if is_folder else files:
            assert store.ingest(path, progress=False).errors == []
        assert len(store.messages_df()) == len(kinds)
        assert len(store.tool_calls_df()) == sum(kind == "call" for kind in kinds.values())
        assert store.runs_df()["input_tokens"].sum() == n_answers * N_INPUT
        assert set(store.sessions_df()["session_id"]) == set(family)
        for session_id, records in family.items():
            said = [None if k == "call" else f"result {t}" if k == "result" else t for _, k, t in records]
            assert texts(store.get_session(session_id)) == said
        assert store.check().problems == []
        again = store.ingest(tmp_path, progress=False)
        assert (again.sessions, again.runs, again.messages) == (0, 0, 0)
