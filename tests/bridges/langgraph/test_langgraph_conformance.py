"""LangGraph's own conformance suite for checkpointers: on its savers in SQLite, and on ours on every engine."""

from __future__ import annotations

import asyncio
from importlib.metadata import version

import pytest

conformance = pytest.importorskip("langgraph.checkpoint.conformance")

from kern_nb.bridges.langgraph import KernSaver


def validate(name, saver, record_property):
    """Run the suite, and record how many checks passed."""
    results = asyncio.run(conformance.validate(conformance.checkpointer_test(name=name)(saver))).results
    passed = sum(result.tests_passed for result in results.values())
    record_property("suite", f"langgraph-checkpoint-conformance {version('langgraph-checkpoint-conformance')}")
    record_property("store", name)
    record_property("passed", passed)
    record_property("total", passed + sum(result.tests_failed for result in results.values()))
    return passed, {name: result.failures for name, result in results.items() if result.failures}


@pytest.mark.every_engine
def test_the_saver_passes_every_check_of_the_suite(store_factory, engine_name, record_property):
    numbers = iter(range(1000))

    async def saver():
        with store_factory(f"s{next(numbers)}") as store:
            yield KernSaver(store)
            assert store.check().problems == []

    passed, failures = validate(engine_name, saver, record_property)
    assert failures == {}
    assert passed >= 81


def test_their_saver_has_its_figures_beside_ours(record_property):
    """It has fewer capabilities: checks of those that it lacks are not counted."""
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite.aio")

    async def saver():
        async with sqlite.AsyncSqliteSaver.from_conn_string(":memory:") as theirs:
            yield theirs

    passed, _ = validate("theirs", saver, record_property)
    assert passed > 0
