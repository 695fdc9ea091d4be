"""A process that writes runs of an Agno agent to one session: path, a letter, the number of runs."""

from __future__ import annotations

import sys

from agno.run import RunContext
from agno_agents import agent, call

from kern_nb.bridges.agno import AgnoDb
from kern_nb.db import SqliteDb


def set_key(run_context: RunContext, key: str) -> str:
    """Set a key of the state."""
    run_context.session_state[key] = 1
    return "ok"


path, who, n_runs = sys.argv[1:]
with SqliteDb(db_file=path) as store:
    db = AgnoDb(store)
    for i in range(int(n_runs)):
        agent(db, [[call("set_key", key=f"{who}{i}")], "Done."], tools=[set_key]).run(f"{who}{i}")
