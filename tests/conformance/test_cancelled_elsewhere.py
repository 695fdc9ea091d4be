"""A run that another process makes is cancelled through the store: it ends with what it had."""

from __future__ import annotations

import pytest

from kern_nb.db import open_store
from kern_nb.errors import BadUsage, RunNotFound


@pytest.mark.parametrize("quiet", [False, True], ids=["writing", "waiting"])
def test_process_ends_its_run_on_request(persistent_target, workers, quiet):
    """With its next message; while it waits for a tool, with a heartbeat."""
    [worker] = workers(1)
    worker.begin("run_agent", target=persistent_target, session_id="chat", quiet=quiet)
    run_id = worker.hear()["run_id"]
    with open_store(persistent_target) as store:
        assert store.cancel_run(run_id) is True
        assert worker.end()[:2] == [run_id, "CANCELLED"]
        run = store.get_run(run_id)
        assert (run.status, run.error, run.messages[0].content) == ("CANCELLED", "cancelled", "Go")
        if not quiet:
            assert "done" in [message.content for message in run.messages]
        assert all(call.status in ("completed", "unknown") for call in run.tool_calls)
        assert store.cancel_run(run_id) is False


def test_run_of_killed_process_ends_at_once(persistent_target, workers):
    """There is nobody to ask."""
    [worker] = workers(1)
    run_id = worker.do("begin", target=persistent_target, session_id="chat", messages=2)
    with open_store(persistent_target) as store:
        assert store.cancel_run(run_id) is True
        assert store.get_run(run_id).status == "RUNNING"
        worker.kill()
        assert store.cancel_run(run_id) is True
        run = store.get_run(run_id)
        assert (run.status, len(run.messages), run.tool_calls[0].status) == ("CANCELLED", 3, "unknown")
        with pytest.raises(RunNotFound):
            store.cancel_run("unknown")
        member = store.start_run("chat", input="x", parent_run_id=run_id)
        with pytest.raises(BadUsage, match="member or a step"):
            store.cancel_run(member.run_id)
