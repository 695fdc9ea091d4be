"""Reruns with hostile texts in every rendered field: one paused, one failed."""

from __future__ import annotations

from hostile import HOSTILE, hostile_paused_run

from kern_nb.agent import Agent
from kern_nb.db import InMemoryDb
from kern_nb.db.references import Reference
from kern_nb.models.scripted import ScriptedModel
from kern_nb.operations.rerun import Rerun
from kern_nb.operations.rerun.planning import Input
from kern_nb.records import Run

BAD = HOSTILE["script"]


def _shown(run: Run, **options: object) -> Rerun:
    """The rerun of a hostile session that was deleted since: comparisons are rendered elsewhere."""
    agent = Agent(ScriptedModel("x"), name=BAD, id=HOSTILE["quotes"])
    of = {"session_id": f"a{BAD}", "run_id": BAD, "run_index": 3}
    left = (Input(BAD, of),) * 12
    return Rerun(
        Reference(f"a{BAD}"), f"b{BAD}", [run], agent, InMemoryDb(), left=left, skipped=(f"a{BAD}/9",), **options
    )


def paused() -> Rerun:
    """It waits for requirements of every kind."""
    changed = {"model": BAD, "tools": [BAD, HOSTILE["nul"]], "instructions": BAD, "message": True}
    return _shown(hostile_paused_run(), changed=changed)


def failed() -> Rerun:
    """It failed with a hostile error."""
    error = "\n".join(HOSTILE.values())
    return _shown(Run(run_index=2, session_id=f"b{BAD}", status="ERROR", error=error))


CASES = {"rerun-failed": lambda: failed()._repr_html_(), "rerun-paused": lambda: paused()._repr_html_()}
