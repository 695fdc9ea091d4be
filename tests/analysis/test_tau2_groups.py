"""gpt-4.1 against the fine-tuned model on the tau2 samples: every figure, computed again from the raw JSON."""

from __future__ import annotations

import json
import math

import pandas as pd
import pytest
from trials import row, table

from kern_nb.analysis.groups import compare_groups
from kern_nb.db import InMemoryDb

BASE = "gpt-4.1"
DOMAINS = {"airline": "airline_default", "retail": "retail_default", "telecom": "telecom_no-user"}
METRICS = ("reward", "tokens", "cost", "time", "tool_calls", "tool_errors", "messages")


@pytest.fixture(scope="module")
def samples(shared_data):
    """A store with the six files, and of each domain the simulations of both models."""
    raw, tuned = {}, set()
    with InMemoryDb() as store:
        for domain, name in DOMAINS.items():
            raw[domain] = []
            for prefix in ("gpt-4.1", "ft-gpt-4.1-sierra"):
                file = shared_data / "tau2" / f"{prefix}_{name}_gpt-4.1_1trials.json"
                assert not store.ingest(file, progress=False).errors
                document = json.loads(file.read_text())
                tuned.add(document["info"]["agent_info"]["llm"])
                raw[domain].append([figures(simulation) for simulation in document["simulations"]])
        [name] = tuned - {BASE}
        yield store, raw, name


def figures(simulation):
    """What a simulation's own record says, in plain Python."""
    messages = simulation["messages"]
    said = [message for message in messages if message["role"] == "assistant"]
    usage = [message["usage"] for message in said if message.get("usage")]
    tokens = sum(one["prompt_tokens"] + one["completion_tokens"] for one in usage)
    calls = [call for message in said for call in message.get("tool_calls") or []]
    ids = {call["id"] for call in calls}
    failed = [m for m in messages if m["role"] == "tool" and m.get("error") and m["id"] in ids]
    cost = simulation["agent_cost"]
    return {
        "task": simulation["task_id"],
        "reward": simulation["reward_info"]["reward"],
        "tokens": tokens,
        "cost": None if cost == 0 and tokens else cost,
        "time": simulation["duration"],
        "tool_calls": len(calls),
        "tool_errors": len(failed),
        "messages": len(messages),
    }


def mean(values):
    """The mean of what is known; None of nothing."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


def close(value):
    """What is equal but for the order in which floats were added."""
    return None if value is None else pytest.approx(value, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("domain", DOMAINS)
def test_groups_match_the_files(samples, domain):
    """Success rate, pass^1, mean and sum of tokens, cost and time of each model."""
    store, raw, tuned = samples
    found = compare_groups(store, where={"metadata.domain": domain}, groups=[BASE, tuned])

    for model, simulations in zip((BASE, tuned), raw[domain], strict=True):
        group = row(found.groups, group=model)
        won = sum(abs(one["reward"] - 1) <= 1e-6 for one in simulations)
        assert group["n_sessions"] == group["n_keys"] == group["n_scored"] == len(simulations)
        assert group["success_rate"] == group["pass_1"] == close(won / len(simulations))
        for name in ("tokens", "cost", "time"):
            known = [one[name] for one in simulations if one[name] is not None]
            assert group[name] == close(mean(known))
            assert group[f"{name}_total"] == close(math.fsum(known) if known else None)
            assert group[f"{name}_known"] == len(known)
    assert found.ambiguous.empty
    assert found.unmatched.empty


@pytest.mark.parametrize("domain", DOMAINS)
def test_paired_differences_match_the_files(samples, domain):
    """Of every task and every metric, and their means; the intervals hold them."""
    store, raw, tuned = samples
    found = compare_groups(store, where={"domain": domain}, groups=[BASE, tuned])
    a, b = ({one["task"]: one for one in simulations} for simulations in raw[domain])
    pairs = {(key, metric): rest for key, metric, *rest in table(found.pairs)}

    assert {key for key, _ in pairs} == a.keys() == b.keys()
    for metric in METRICS:
        deltas = []
        for task in a:
            x, y = a[task][metric], b[task][metric]
            delta = None if x is None or y is None else y - x
            deltas += [] if delta is None else [delta]
            assert pairs[task, metric] == [close(x), close(y), close(delta)], (task, metric)
        compared = row(found.metrics, metric=metric)
        assert compared["n_pairs"] == len(deltas)
        assert compared["delta"] == close(mean(deltas))
        if deltas:
            assert compared["low"] <= compared["delta"] <= compared["high"]
    assert set(found.better.key) == {task for task in a if b[task]["reward"] > a[task]["reward"]}
    assert set(found.worse.key) == {task for task in a if b[task]["reward"] < a[task]["reward"]}


@pytest.mark.parametrize("domain", DOMAINS)
def test_cost_of_the_tuned_model_is_unknown(samples, domain):
    """Its agent_cost is 0 beside spent tokens: nobody knew the price. It is missing everywhere, and it is said."""
    store, _, tuned = samples
    found = compare_groups(store, where={"domain": domain}, groups=[BASE, tuned])
    group, cost = row(found.groups, group=tuned), row(found.metrics, metric="cost")

    assert group["tokens_total"] > 100_000
    assert (group["cost"], group["cost_total"], group["cost_known"]) == (None, None, 0)
    assert cost == {"metric": "cost", "n_pairs": 0} | dict.fromkeys(["a", "b", "delta", "low", "high", "better"])
    assert found.sessions.cost[found.sessions.group == tuned].isna().all()
    assert f"known for 0 of {group['n_sessions']} sessions" in repr(found)


def test_domains_combined(samples):
    """With the domain in the key, all tasks of all domains are compared at once, and none is mixed with another's."""
    store, raw, tuned = samples
    found = compare_groups(store, key=["domain", "task_id"], groups=[BASE, tuned])
    rewards = [[one["reward"] for domain in DOMAINS for one in raw[domain][side]] for side in (0, 1)]
    compared = row(found.metrics, metric="reward")

    assert compared["n_pairs"] == len(rewards[0]) == 100
    assert (compared["a"], compared["b"]) == (close(mean(rewards[0])), close(mean(rewards[1])))
    assert len(found.sessions) == 200
    assert pd.Series(found.pairs.key.unique()).str.startswith(tuple(DOMAINS)).all()
