"""tau2 result files: the totals of the samples are right on every engine, and no field of a record is lost."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pandas as pd
import pytest

FRAMES = ("sessions_df", "runs_df", "messages_df", "tool_calls_df", "scores_df")


@pytest.fixture
def tau2(shared_data):
    """The folder of samples."""
    return shared_data / "tau2"


@pytest.fixture
def expected(shared_data):
    """The figures of each sample, by the name of its experiment."""
    figures = json.loads((shared_data / "EXPECTED.json").read_text())
    return {name.removeprefix("tau2/").removesuffix(".json"): f for name, f in figures.items() if f["kind"] == "tau2"}


def frames_of(store):
    return {name: getattr(store, name)() for name in FRAMES}


def totals_of(frames, experiment):
    """What EXPECTED.json says of a file, computed from the frames alone."""
    sessions, messages, calls = (frames[name] for name in ("sessions_df", "messages_df", "tool_calls_df"))
    metadata = sessions["metadata"].map(json.loads)
    own = metadata.map(lambda m: m["experiment"] == experiment)
    ids, metadata, sessions = sessions["session_id"][own], metadata[own], sessions[own]
    messages, calls = messages[messages["session_id"].isin(ids)], calls[calls["session_id"].isin(ids)]
    scores = frames["scores_df"]
    rewards = scores[scores["session_id"].isin(ids) & (scores["name"] == "reward")]
    users = messages[messages["role"] == "user"]

    def values(key):
        return set(metadata.map(lambda m: m[key]))

    return {
        "domain": values("domain"),
        "agent_model": values("model"),
        "user_model": values("user_model"),
        "tasks": len(values("task_id")),
        "trials": len(values("trial")),
        "simulations": len(sessions),
        "messages": int(sessions["n_messages"].sum()),
        "by_role": messages["role"].value_counts().to_dict(),
        "tool_calls": len(calls),
        "tool_calls_by_requestor": calls["caller"].value_counts().to_dict(),
        "tool_errors": int(calls["is_error"].sum()),
        "reward_sum": float(rewards["value"].sum()),
        "termination": metadata.map(lambda m: m["termination_reason"]).value_counts().to_dict(),
        "agent_prompt_tokens": int(sessions["input_tokens"].sum()),
        "agent_completion_tokens": int(sessions["output_tokens"].sum()),
        "user_prompt_tokens": int(users["input_tokens"].sum()),
        "user_completion_tokens": int(users["output_tokens"].sum()),
        "agent_cost": sessions["cost"].sum(min_count=1),
        "user_cost": float(users["cost"].sum()),
        "duration_s": float(sessions["duration_s"].sum()),
        "distinct_tools": calls["tool_name"].nunique(),
    }


@pytest.mark.every_engine
def test_frames_match_the_totals_of_the_samples(store, tau2, expected):
    """Counts, rewards, tokens, cost and time, computed from the frames of every engine."""
    report = store.ingest(tau2, progress=False)
    frames = frames_of(store)

    assert not report.errors
    assert (report.sessions, report.messages, report.tool_calls) == (240, 8031, 2790)
    assert report.runs == len(frames["runs_df"])
    for experiment, figures in expected.items():
        totals = totals_of(frames, experiment)
        for key, value in figures.items():
            if key in ("kind", "bytes", "sha256"):
                continue
            if key in ("domain", "agent_model", "user_model"):
                assert totals[key] == {value}, (experiment, key)
            elif key == "agent_cost" and value == 0:
                assert pd.isna(totals[key]), "a cost of 0 beside tokens is unknown"
            else:
                assert totals[key] == (pytest.approx(value, abs=1e-3) if isinstance(value, float) else value), key


def test_a_second_import_skips_every_session(store, tau2):
    """Every frame is unchanged."""
    store.ingest(tau2, progress=False)
    before = frames_of(store)
    again = store.ingest(tau2, progress=False)

    assert (again.sessions, again.runs, again.messages, again.tool_calls, again.skipped) == (0, 0, 0, 0, 240)
    for name, frame in frames_of(store).items():
        pd.testing.assert_frame_equal(frame, before[name])


@pytest.fixture
def stored(db, tau2):
    """A store with the sample in which the simulated user calls tools, and the simulations of the file."""
    file = tau2 / "gpt-4.1_telecom_default_gpt-4.1_1trials.json"
    db.ingest(file)
    return db, json.loads(file.read_text())


def test_every_field_of_a_message_is_stored(stored):
    """In a field of the message or in its extra."""
    store, document = stored
    for simulation in document["simulations"][:5]:
        session = store.get_session(simulation["id"])
        messages = [message for run in session.runs for message in run.messages]
        assert len(messages) == len(simulation["messages"])
        for message, record in zip(messages, simulation["messages"], strict=True):
            usage = message.usage
            calls = [
                {"id": c.tool_call_id, "name": c.tool_name, "arguments": c.args, "requestor": c.caller}
                for c in message.tool_calls
            ]
            tool = {"id": message.tool_call_id, "error": message.is_error} if message.role == "tool" else {}
            tokens = {"completion_tokens": usage.output_tokens, "prompt_tokens": usage.input_tokens} if usage else {}
            fields = {
                "role": message.role,
                "content": message.content,
                "tool_calls": calls or None,
                "timestamp": message.created_at.replace(tzinfo=None).isoformat(),
                "cost": usage.cost if usage else None,
                "usage": tokens if any(tokens.values()) else None,
                **tool,
                **message.extra,
            }
            assert {k: v for k, v in fields.items() if v is not None} == {
                k: v for k, v in record.items() if v is not None
            }


def test_every_field_of_a_simulation_is_stored(stored):
    """Scalars in the metadata; the task, details of the reward and the experiment's info in the agent data."""
    from kern_nb.db import codec

    store, document = stored
    tasks = {task["id"]: task for task in document["tasks"]}
    with store.read_connection() as connection:
        blobs = store.tables.blobs
        shared = dict(connection.execute(blobs.select().with_only_columns(blobs.c.sha256, blobs.c.content)).all())
    for simulation in document["simulations"]:
        session = store.get_session(simulation["id"])
        stored_data = session.agent_data["tau2"]
        assert stored_data["reward_info"] == simulation["reward_info"]
        assert stored_data["task"] == tasks[simulation["task_id"]]
        assert codec.loads(shared[stored_data["info"]].decode()) == document["info"]
        assert session.duration_s == simulation["duration"]
        assert session.metadata["time_zone"] == "unknown"
        for key, value in simulation.items():
            if key not in ("id", "messages", "reward_info"):
                assert session.metadata[key] == value
    assert len(shared) == 1, "what all sessions share is stored once"


def test_a_run_starts_with_a_user_message(stored):
    """The greeting belongs to the first run; tool calls of the user belong to the run of her message."""
    store, document = stored
    for simulation in document["simulations"]:
        runs = store.get_session(simulation["id"]).runs
        assert [m.role for m in runs[0].messages[:2]] == ["assistant", "user"]
        assert [run.run_index for run in runs] == list(range(len(runs)))
        for run in runs:
            roles = [m.role for m in run.messages]
            last_user = len(roles) - 1 - roles[::-1].index("user")
            texts = [m.content for m in run.messages if m.role == "user" and m.content]
            answers = [m.content for m in run.messages[last_user:] if m.role == "assistant" and m.content]
            users = {c.tool_call_id for c in run.tool_calls if c.caller == "user"}
            first_user = roles.index("user")
            between = run.messages[first_user:last_user]
            assert all(m.role == "user" or m.tool_call_id in users for m in between)
            assert run.input == ("\n".join(texts) or None)
            assert run.output == (answers[-1] if answers else None)
            assert run.created_at == run.messages[0].created_at
            assert run.finished_at == run.messages[-1].created_at
            assert all(c.status in ("completed", "failed") for c in run.tool_calls)


def test_a_simulation_without_a_user_is_a_single_run(db, tau2):
    """There is nothing to split by."""
    db.ingest(tau2 / "gpt-4.1_telecom_no-user_gpt-4.1_1trials.json")
    runs = db.runs_df()

    assert len(runs) == 40
    assert runs["input"].isna().all()
    assert runs["output"].notna().all()


def test_times_are_read_as_utc(stored):
    """A session has the start and end of its simulation, in seconds."""
    store, document = stored
    first = document["simulations"][0]
    session = store.get_session(first["id"])

    assert session.created_at == int(datetime.fromisoformat(first["start_time"]).replace(tzinfo=UTC).timestamp())
    assert session.updated_at == int(datetime.fromisoformat(first["end_time"]).replace(tzinfo=UTC).timestamp())


def test_the_factors_of_a_reward_are_scores(stored):
    """The reward and each factor are scores of the session, by name."""
    store, document = stored
    scores = store.scores_df()
    by_session = scores.set_index(["session_id", "name"])["value"]
    for simulation in document["simulations"]:
        info = simulation["reward_info"]
        assert by_session[simulation["id"], "reward"] == info["reward"]
        for part, value in (info["reward_breakdown"] or {}).items():
            assert by_session[simulation["id"], f"reward.{part}"] == value
    assert scores["run_id"].isna().all()
