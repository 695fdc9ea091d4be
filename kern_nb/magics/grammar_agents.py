"""The verbs about agents and runs that wait, as data: run, inbox, approve, reject, answer, handoff, continue."""

from __future__ import annotations

from kern_nb.magics import verbs
from kern_nb.magics.syntax import STORE, Verb, arg, switch

_REF = arg(
    "ref", "REF", "A requirement's id or the beginning of it, or the run (`chat/2`) that waits for it.", "requirements"
)
_NOTE = arg("--note", "TEXT", "A word to the model, or to who answers next.")
_BY = arg("--by", "WHO", "Who says so; the login name where left out.")
_REQUIREMENTS_OF = arg("--session", "REF", "Of one session, or one run of it.", "references")

AGENT_VERBS: tuple[Verb, ...] = (
    Verb(
        "run",
        "Give an agent the text of the cell, and stream its answer into the cell.",
        verbs.run,
        example="%%kern run clerk --session trip\nWhere is my order W1?",
        python='clerk.print_response("Where is my order W1?", session_id="trip")',
        arguments=(
            arg("agent", "AGENT", "An agent, team or workflow: its variable, its id or its name.", "agents"),
            arg("--session", "SESSION", "The session, which may be new; the agent's own where left out.", "sessions"),
            arg("--user", "USER", "Whose session it is."),
        ),
        more="The text is taken as it is: `$name` in it is no variable.",
        prefix="%%kern ",
    ),
    Verb(
        "inbox",
        "List what paused runs wait for.",
        verbs.inbox,
        example="%kern inbox --for ann",
        python='kern_nb.inbox(assignee="ann")',
        arguments=(
            arg("--user", "USER", "In the sessions of one user."),
            arg("--for", "WHO", "What one person is to answer.", dest="assignee"),
            _REQUIREMENTS_OF,
            switch("--all", "What was answered, or is too late, too."),
            switch("--widget", "To answer by a click; it looks again by itself."),
            STORE,
        ),
        more="The result has `.df`, the DataFrame, and `.requirements`. The widget is, in Python,"
        " `kern_nb.widgets.requirements.widget.inbox_widget(...)`.",
    ),
    Verb(
        "approve",
        "Let a tool run that waits for confirmation, with the arguments of the model or with others.",
        verbs.approve,
        example='%kern approve 3f2a91bc --args {"path": "old.txt"}',
        python='store.resolve("3f2a91bc", approve=True, args={"path": "old.txt"})',
        arguments=(
            _REF,
            arg("--args", "JSON", "Arguments that replace the model's, by name, as a JSON object."),
            _NOTE,
            _BY,
            STORE,
        ),
        more="A requirement is answered once: a second answer is refused. The run goes on with `%kern continue`.",
    ),
    Verb(
        "reject",
        "Refuse what a paused run waits for.",
        verbs.reject,
        example='%kern reject 3f2a91bc --note "That file is still needed."',
        python='store.resolve("3f2a91bc", approve=False, note="That file is still needed.")',
        arguments=(_REF, _NOTE, _BY, STORE),
        more="The note is what the model is told.",
    ),
    Verb(
        "answer",
        "Give the value that a paused run waits for.",
        verbs.answer,
        example='%kern answer 3f2a91bc city=Paris date="next Monday"',
        python='store.resolve("3f2a91bc", value={"city": "Paris", "date": "next Monday"})',
        arguments=(
            _REF,
            arg("value", "VALUE", "JSON, a text, or field=value for each field that is asked for.", nargs="+"),
            _NOTE,
            _BY,
            STORE,
        ),
        more="What parses as JSON is JSON, anything else is text; several words are one text.",
    ),
    Verb(
        "handoff",
        "Hand what waits, or a whole session, to a person.",
        verbs.handoff,
        example='%kern handoff chat/2 --to ann --note "You know this customer."',
        python='store.handoff("chat/2", to="ann", note="You know this customer.")',
        arguments=(
            arg("ref", "REF", "A requirement, a run or a session.", "waiting"),
            arg("--to", "WHO", "The person.", required=True),
            _NOTE,
            _BY,
            STORE,
        ),
        more="A session in which nothing waits gets a paused run, which the person's answer lets go on.",
    ),
    Verb(
        "continue",
        "Go on with a run that paused and has its answers, or that was interrupted.",
        verbs.continue_,
        example="%kern continue chat/2 --agent clerk",
        python='clerk.continue_run(run_id, session_id="chat")',
        arguments=(
            arg("ref", "REF", "The run; or its session, where only one run of it waits.", "unfinished"),
            arg("--agent", "AGENT", "Who goes on; else the agent in this notebook whose run it is.", "agents"),
            STORE,
        ),
        more="The value is the run.",
    ),
)
