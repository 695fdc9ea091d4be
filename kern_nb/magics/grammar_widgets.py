"""The verbs that show a widget, as data: browse, chat. `inbox` and `compare` have one, too: ``--widget``."""

from __future__ import annotations

from kern_nb.magics import verbs_widgets as verbs
from kern_nb.magics.kinds import STATUSES, one_of
from kern_nb.magics.syntax import STORE, Verb, arg

WIDGET_VERBS: tuple[Verb, ...] = (
    Verb(
        "browse",
        "Look through the sessions by mouse and keyboard: filter, read, branch, compare, rename, tag.",
        verbs.browse,
        example="%kern browse --text refund",
        python='kern_nb.browse(text="refund")',
        arguments=(
            arg("--text", "TEXT", "Those with this in their title or id; `#refund`: with that tag."),
            arg("--agent", "AGENT", "Those with this in the id of their agent, team or workflow.", "agent_ids"),
            arg("--user", "USER", "Those with this in the id of their user."),
            arg(
                "--status",
                "STATUS",
                "Those whose latest run has this status.",
                "statuses",
                type=one_of("status", STATUSES, str.upper),
            ),
            STORE,
        ),
        more="What is selected is at hand: `b = %kern browse`, then `b.selected`, `b.df()`. A widget is not the only"
        " place of anything: every click says the line that would do the same.",
    ),
    Verb(
        "chat",
        "Talk to an agent in the cell's output; tools and pauses in place.",
        verbs.chat,
        example="%kern chat clerk --session trip",
        python='kern_nb.chat(clerk, session_id="trip")',
        arguments=(
            arg("agent", "AGENT", "An agent, team or workflow: its variable, its id or its name.", "agents"),
            arg("--session", "SESSION", "The session, which may be new; the agent's own where left out.", "sessions"),
            arg("--user", "USER", "Whose session it is."),
        ),
        more="The conversation is the session: opened again, it is there. Other cells run while the agent answers.",
    ),
)
