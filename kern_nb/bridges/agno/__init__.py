"""Agno 3: its agents, teams and workflows on a store of kern_nb.

`AgnoDb` is a database of Agno's whose sessions and runs are rows of a store. `attach` sets it for an agent, a team with
its members, or a workflow.
"""

from kern_nb.bridges.agno.attach import attach
from kern_nb.bridges.agno.database import AgnoDb
from kern_nb.bridges.agno.others import NotInStore
from kern_nb.bridges.agno.resume import owner_names, resume
from kern_nb.bridges.agno.warnings import SaveFailed

__all__ = ["AgnoDb", "NotInStore", "SaveFailed", "attach", "owner_names", "resume"]
