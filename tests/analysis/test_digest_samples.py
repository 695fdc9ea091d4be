"""Digests of the tau2 samples: every figure beside what EXPECTED.json says of the files."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from kern_nb.analysis.digest import digest
from kern_nb.db import DuckDb

FILES = (
    "ft-gpt-4.1-sierra_airline_default_gpt-4.1_1trials.json",
    "gpt-4.1_retail_default_gpt-4.1_1trials.json",
    "gpt-4.1_telecom_default_gpt-4.1_1trials.json",
    "gpt-4.1_telecom_no-user_gpt-4.1_1trials.json",
)


@pytest.fixture(scope="module")
def samples(shared_data, tmp_path_factory):
    """A store with the files, the ids of each file's sessions, and what is expected of it."""
    expected = json.loads((shared_data / "EXPECTED.json").read_text())
    ids = {}
    with DuckDb(db_file=tmp_path_factory.mktemp("samples") / "s.duckdb") as store:
        for file in FILES:
            assert not store.ingest(shared_data / "tau2" / file, progress=False).errors
            document = json.loads((shared_data / "tau2" / file).read_text())
            ids[file] = [simulation["id"] for simulation in document["simulations"]]
        yield store, ids, {file: expected[f"tau2/{file}"] for file in FILES}


@pytest.mark.parametrize("file", FILES)
def test_sums_match_the_file(samples, file):
    """Tokens, cost, calls, errors, time and reward; a simulated user's tokens and calls are left out."""
    store, ids, expected = samples
    found, said = digest(*ids[file], store=store), expected[file]
    metrics = found.metrics.set_index("metric")["value"]
    calls = said["tool_calls_by_requestor"]

    assert len(found.items) == said["simulations"]
    assert metrics["n_messages"] == said["messages"]
    assert metrics["input_tokens"] == said["agent_prompt_tokens"]
    assert metrics["output_tokens"] == said["agent_completion_tokens"]
    assert metrics["n_tool_calls"] == found.tools["calls"].sum() == calls["assistant"]
    assert metrics["n_tool_errors"] == found.tools["failed"].sum() == said["tool_errors"]
    assert found.n_user_calls == calls.get("user", 0)
    assert metrics["reward"] * said["simulations"] == pytest.approx(said["reward_sum"])
    assert metrics["duration_s"] == pytest.approx(said["duration_s"], abs=0.001)
    if said["agent_cost"]:
        assert metrics["cost"] == pytest.approx(said["agent_cost"], abs=1e-6)
    else:
        assert metrics.isna()["cost"]
    if "user" not in calls:
        assert len(found.tools) == said["distinct_tools"]


def test_filter_selects_the_sessions_of_a_file(samples):
    """By what the sessions say of themselves, the same as by their ids."""
    store, ids, expected = samples
    file = FILES[0]
    found = digest(where={"domain": "airline", "model": expected[file]["agent_model"]}, store=store)

    assert set(found.items["item"]) == set(ids[file])


def test_longest_answer_matches_the_file(samples, shared_data):
    """Between the messages before and after, in the simulation and at the place that the digest names."""
    store, ids, _ = samples
    file = FILES[3]  # one run a simulation: the message's index is its place in the file
    document = json.loads((shared_data / "tau2" / file).read_text())
    gaps = {}
    for simulation in document["simulations"]:
        messages = simulation["messages"]
        times = [datetime.fromisoformat(message["timestamp"]) for message in messages]
        for n, message in enumerate(messages[1:], start=1):
            if message["role"] == "assistant":
                gaps[f"{simulation['id']}/0.{n}"] = (times[n] - times[n - 1]).total_seconds()
    found = digest(*ids[file], store=store).longest
    answers = found[found["kind"] == "answer"]

    slowest = sorted(gaps, key=gaps.get, reverse=True)[: len(answers)]
    assert answers["place"].tolist() == slowest
    assert answers["duration_s"].tolist() == pytest.approx([gaps[place] for place in slowest])
    assert set(answers["timed"]) == {"gap"}
