"""A process that writes runs of an Agno agent to one session: path, a letter, the number of runs, whose database."""

from __future__ import annotations

import contextlib
import sys

from agno.db.sqlite import SqliteDb as AgnoSqliteDb
from agno.run import RunContext
from agno_agents import agent, call

from kern_nb.bridges.agno import AgnoDb
from kern_nb.db import SqliteDb


def set_key(run_context: RunContext, key: str) -> str:
    """Set a key of the state."""
    run_context.session_state[key] = 1
    return "ok"


path, who, n_runs, whose = sys.argv[1:]
with contextlib.ExitStack() as stack:
    db = AgnoSqliteDb(db_file=path) if whose == "theirs" else AgnoDb(stack.enter_context(SqliteDb(db_file=path)))
    for i in range(int(n_runs)):
        agent(db, [[call("set_key", key=f"{who}{i}")], "Done."], tools=[set_key]).run(f"{who}{i}")
