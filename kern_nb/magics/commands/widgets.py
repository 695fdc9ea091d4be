"""Verbs that show a widget: browse, chat. `inbox` and `compare` have one, too: ``--widget``."""

from __future__ import annotations

import kern_nb
from kern_nb.magics.commands.agents import SESSION, USER
from kern_nb.magics.verb import AGENT, STATUS, STORE, arg, verb

VERBS = (
    verb(
        "browse",
        "Browse the sessions in a widget: filter, read, branch, compare, rename, tag.",
        lambda args: kern_nb.browse(args.store, text=args.text, agent=args.agent, user=args.user, status=args.status),
        arg("--text", "TEXT", "Only sessions whose title or id contains this; `#refund`: with that tag."),
        arg("--agent", "AGENT", "Only sessions whose agent, team or workflow id contains this.", "agent_ids"),
        arg("--user", "USER", "Only sessions whose user id contains this."),
        STATUS,
        STORE,
        example="%kern browse --text refund",
        python='kern_nb.browse(text="refund")',
        details="The selection is available in Python: `b = %kern browse`, then `b.selected`, `b.df()`. Every click"
        " shows the line that does the same.",
    ),
    verb(
        "chat",
        "Chat with an agent in the cell's output, tool calls and requirements included.",
        lambda args: kern_nb.chat(args.agent, args.session, user_id=args.user),
        AGENT,
        SESSION,
        USER,
        example="%kern chat clerk --session trip",
        python='kern_nb.chat(clerk, session_id="trip")',
        details="The chat is the session: it is still there when you open it again. Other cells run while the agent"
        " answers.",
    ),
)
