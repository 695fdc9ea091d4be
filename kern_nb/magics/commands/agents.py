"""Verbs about agents and their runs: run, continue, attach-agent, detach-agent, listen."""

from __future__ import annotations

from argparse import Namespace

import kern_nb
from kern_nb.errors import BadUsage
from kern_nb.magics.verb import AGENT, STORE, arg, switch, verb
from kern_nb.operations import agent_registry

SESSION = arg("--session", "SESSION", "The session, existing or new; by default the agent's own.", "sessions")
USER = arg("--user", "USER", "The user of the session.")


def _run(args: Namespace) -> None:
    agent_registry.find(args.agent).print_response(args.cell, session_id=args.session, user_id=args.user)


def _continue(args: Namespace) -> object:
    from kern_nb.operations import resume

    return resume.continue_run(args.ref, agent=args.agent, store=args.store)


VARIABLE = arg("name", "NAME", "The variable that holds the agent.", "attachable")


def _attach_agent(args: Namespace) -> None:
    kern_nb.attach_agent(agent_registry.find_object(args.name), args.store)


def _detach_agent(args: Namespace) -> None:
    kern_nb.detach_agent(agent_registry.find_object(args.name))


def _listen(args: Namespace) -> object:
    from kern_nb.bridges import otel

    if not args.stop:
        return kern_nb.listen(args.store, otel.DEFAULT_PORT if args.port is None else args.port)
    if args.store is not None:
        raise BadUsage("--stop takes no --store.", "It ends all listeners of this notebook, or that of --port.")
    otel.stop_listening(args.port)
    return None


VERBS = (
    verb(
        "run",
        "Run an agent on the text of the cell, and stream its answer into the cell.",
        _run,
        AGENT,
        SESSION,
        USER,
        example="%%kern run clerk --session trip\nWhere is my order W1?",
        python='clerk.print_response("Where is my order W1?", session_id="trip")',
        details="The text is passed literally: `$name` in it is not replaced.",
        prefix="%%kern ",
    ),
    verb(
        "continue",
        "Resume a run that paused and whose requirements are resolved, or that was interrupted.",
        _continue,
        arg("ref", "REF", "The run; or its session, if only one run of it is unfinished.", "unfinished_runs"),
        arg(
            "--agent", "AGENT", "The agent that resumes; by default the agent of this notebook that ran it.", "runners"
        ),
        STORE,
        example="%kern continue chat/2 --agent clerk",
        python='clerk.continue_run(run_id, session_id="chat")',
        details="The value is the run. Of attached agents of other frameworks, paused runs are resumed.",
    ),
    verb(
        "attach-agent",
        "Let an agent of another framework, or one of ours, write to the store in use.",
        _attach_agent,
        VARIABLE,
        STORE,
        example="%kern attach-agent clerk",
        python="kern_nb.attach_agent(clerk)",
        details="Agents, teams and workflows of Agno, agents of the OpenAI Agents SDK and of pydantic-ai, graphs of"
        " LangGraph. Each framework is an extra, for example `pip install kern_nb[agno]`. Attached to another store,"
        " an agent writes to that from then on.",
    ),
    verb(
        "detach-agent",
        "Let an agent write where it did before it was attached.",
        _detach_agent,
        VARIABLE,
        example="%kern detach-agent clerk",
        python="kern_nb.detach_agent(clerk)",
    ),
    verb(
        "listen",
        "Record the agents of other processes while they run: their OpenTelemetry spans, OTLP over HTTP.",
        _listen,
        arg("--port", "N", "The port; by default 4318, the one of OTLP. 0 takes a free one.", type=int),
        switch("--stop", "Stop listening, on all ports or on that of --port."),
        STORE,
        example="%kern listen --port 4318",
        python="listener = kern_nb.listen(port=4318)",
        details="The value shows the URL. Set `OTEL_EXPORTER_OTLP_ENDPOINT` to it where the agent runs; runs appear in"
        " `%kern browse` after the first answer of a model. Only programs on this machine are listened to. It ends with"
        " the kernel. Needs `pip install kern_nb[otel]`; docs/bridges.md names the instrumentation of each framework.",
    ),
)
