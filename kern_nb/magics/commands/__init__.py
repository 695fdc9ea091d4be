"""The verbs as data: the parser, the help, Tab and `docs/magics.md` derive from them.

A new verb is one entry, in the file of its topic.
"""

from __future__ import annotations

from kern_nb.magics.commands import agents, analysis, requirements, sessions, stores, widgets
from kern_nb.magics.commands.sessions import SQL

__all__ = ["SQL", "VERBS"]

VERBS = (*stores.VERBS, *sessions.VERBS, *analysis.VERBS, *agents.VERBS, *requirements.VERBS, *widgets.VERBS)
