"""LangGraph's own conformance suite for checkpointers, on every engine."""

from __future__ import annotations

import asyncio

import pytest

conformance = pytest.importorskip("langgraph.checkpoint.conformance")

from kern_nb.bridges.langgraph import KernSaver


@pytest.mark.every_engine
def test_the_saver_passes_every_check_of_the_suite(store_factory, engine_name):
    numbers = iter(range(1000))

    @conformance.checkpointer_test(name=engine_name)
    async def saver():
        with store_factory(f"s{next(numbers)}") as store:
            yield KernSaver(store)
            assert store.check().problems == []

    results = asyncio.run(conformance.validate(saver)).results
    assert {name: result.failures for name, result in results.items() if result.failures} == {}
    assert sum(result.tests_passed or 0 for result in results.values()) >= 81
