"""The frames' columns, as data: name, kind and meaning, in order. `docs/columns.md` is made from this table.

The kind decides the dtype. A JSON column holds JSON text, so that SQL and Arrow can read it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["text", "json", "count", "number", "time", "flag"]

DTYPES: dict[Kind, str] = {
    "text": "string",
    "json": "string",
    "count": "Int64",
    "number": "Float64",
    "time": "datetime64[us, UTC]",
    "flag": "boolean",
}


class Column(NamedTuple):
    """One column of a frame."""

    name: str
    kind: Kind
    description: str


SESSION_ID = Column("session_id", "text", "The session.")
RUN_ID = Column("run_id", "text", "The run.")
RUN_INDEX = Column("run_index", "count", "The run's place in its session, from 0; a branch counts on from its fork.")
OWNERS = (
    Column("agent_id", "text", "The agent."),
    Column("team_id", "text", "The team."),
    Column("workflow_id", "text", "The workflow."),
    Column("user_id", "text", "The user it belongs to."),
)
CALLS = (
    Column("n_messages", "count", "Its messages."),
    Column("n_tool_calls", "count", "Tool calls of the agent; those of a simulated user are not counted."),
    Column("n_tool_errors", "count", "Those of them that failed."),
)
TOKENS_IN_OUT = (
    Column(
        "input_tokens", "count", "Tokens the agent's model read, cached ones included where the source includes them."
    ),
    Column("output_tokens", "count", "Tokens the agent's model wrote."),
)
COST = Column(
    "cost", "number", "What the agent's model cost, as the source states it; 0 beside spent tokens is unknown."
)

SESSIONS = (
    SESSION_ID,
    Column("session_name", "text", "Its title."),
    Column("session_type", "text", "agent, team or workflow."),
    *OWNERS,
    Column("parent_session_id", "text", "The session it branches from."),
    Column("fork_run_index", "count", "The last run it inherits; -1 where it inherits none."),
    Column("fork_message_index", "count", "The last message it inherits of that run; missing where it inherits all."),
    Column("n_runs", "count", "Its own runs; inherited ones are the parent's."),
    *CALLS,
    *TOKENS_IN_OUT,
    Column("total_tokens", "count", "Input and output tokens, or the total that the source states."),
    COST,
    Column(
        "duration_s",
        "number",
        "Seconds: the wall time the source states, else the sum of its runs, but members'.",
    ),
    Column("status", "text", "The status of its latest run."),
    Column("metadata", "json", "What else is known of it."),
    Column("created_at", "time", "When it began."),
    Column("updated_at", "time", "When it last changed."),
)

RUNS = (
    SESSION_ID,
    RUN_INDEX,
    RUN_ID,
    Column("parent_run_id", "text", "The run of the team that this member's run served."),
    Column("run_type", "text", "agent, team or workflow."),
    *OWNERS,
    Column("status", "text", "PENDING, RUNNING, PAUSED, COMPLETED, CANCELLED, ERROR, REGENERATED or INTERRUPTED."),
    Column("model", "text", "The model asked."),
    Column("model_provider", "text", "Who serves it."),
    Column("input", "text", "What was asked."),
    Column("output", "text", "What was answered."),
    *CALLS,
    *TOKENS_IN_OUT,
    Column("cache_read_tokens", "count", "Tokens read from the provider's cache."),
    Column("cache_write_tokens", "count", "Tokens written to it."),
    Column("reasoning_tokens", "count", "Tokens of reasoning."),
    Column("total_tokens", "count", "Input and output tokens, or the total that the source states."),
    COST,
    Column("duration_s", "number", "Seconds from its start to its end."),
    Column("time_to_first_token_s", "number", "Seconds to the first token of the answer."),
    Column("error", "text", "What went wrong."),
    Column("created_at", "time", "When it began."),
    Column("finished_at", "time", "When it ended."),
)

MESSAGES = (
    SESSION_ID,
    RUN_ID,
    RUN_INDEX,
    Column("message_index", "count", "The message's place in its run, from 0."),
    Column("message_id", "text", "The source's id for it."),
    Column("role", "text", "system, developer, user, assistant or tool."),
    Column("content", "text", "Its text."),
    Column("tool_call_id", "text", "On a tool's message: the call it answers."),
    Column("tool_name", "text", "On a tool's message: the tool."),
    Column("model", "text", "The model that wrote it."),
    Column("input_tokens", "count", "Tokens its model read."),
    Column("output_tokens", "count", "Tokens its model wrote."),
    Column("cost", "number", "What it cost; 0 beside spent tokens is unknown."),
    Column("created_at", "time", "When it was written."),
)

TOOL_CALLS = (
    SESSION_ID,
    RUN_ID,
    RUN_INDEX,
    Column("message_index", "count", "The message that made the call."),
    Column("tool_call_id", "text", "Its id, unique in its run."),
    Column("tool_name", "text", "The tool."),
    Column("caller", "text", "assistant, or user where a simulated user called it."),
    Column("args", "json", "The arguments."),
    Column("result", "text", "What it returned."),
    Column("status", "text", "started, completed, failed or unknown."),
    Column("is_error", "flag", "Whether it failed; missing while or where that is unknown."),
    Column("duration_s", "number", "Seconds it took."),
    Column("created_at", "time", "When it was made."),
)

SCORES = (
    SESSION_ID,
    Column("run_id", "text", "The run it rates; missing where it rates the session."),
    Column("name", "text", "What is rated, for example reward."),
    Column("value", "number", "The rating."),
)

REQUIREMENTS = (
    Column("requirement_id", "text", "The requirement."),
    SESSION_ID,
    RUN_ID,
    Column("kind", "text", "confirmation, user_input, external_execution or handoff."),
    Column("status", "text", "pending, claimed, resolved or expired."),
    Column("tool_call_id", "text", "The tool call that waits."),
    Column("tool_name", "text", "The tool."),
    Column("args", "json", "The arguments it would be called with."),
    Column("prompt", "text", "What is asked of a person."),
    Column("assignee", "text", "Who is to answer."),
    Column("approved", "flag", "Whether it was allowed; missing where that was not asked, or not yet answered."),
    Column("answer", "json", "The answer: the arguments as edited, or the value that was asked for."),
    Column("note", "text", "What the answerer added."),
    Column("created_at", "time", "When the run paused."),
    Column("resolved_at", "time", "When it was answered."),
    Column("resolved_by", "text", "Who answered."),
)

FRAMES: dict[str, tuple[Column, ...]] = {
    "sessions": SESSIONS,
    "runs": RUNS,
    "messages": MESSAGES,
    "tool_calls": TOOL_CALLS,
    "scores": SCORES,
    "requirements": REQUIREMENTS,
}

INHERITED = Column("inherited", "flag", "With lineage=True: whether the row is a parent's.")


class JsonRoot(NamedTuple):
    """Where `expand` finds values.

    Attributes:
        table: The table that has the JSON; that of the sessions serves every frame.
        column: The column of it.
        keys: The way to the object in it whose keys are meant.
        meaning: What it holds.
    """

    table: str
    column: str
    keys: tuple[str, ...]
    description: str


JSON_ROOTS: dict[str, JsonRoot] = {
    "metadata": JsonRoot("sessions", "metadata", (), "What else is known of the session."),
    "state": JsonRoot("sessions", "session_data", ("session_state",), "The state of the session."),
    "args": JsonRoot("tool_calls", "args", (), "The arguments of the tool call."),
}
