"""The columns of the frames, as data: name, kind and description, in order. `docs/columns.md` is generated from it.

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


SESSION_ID = Column("session_id", "text", "The id of the session.")
RUN_ID = Column("run_id", "text", "The id of the run.")
RUN_INDEX = Column(
    "run_index", "count", "The index of the run in its session, from 0; a branch continues the count from its fork."
)
OWNERS = (
    Column("agent_id", "text", "The id of the agent."),
    Column("team_id", "text", "The id of the team."),
    Column("workflow_id", "text", "The id of the workflow."),
    Column("user_id", "text", "The user who owns the session."),
)
CALLS = (
    Column("n_messages", "count", "The number of messages."),
    Column("n_tool_calls", "count", "The number of the agent's tool calls, without those of a simulated user."),
    Column("n_tool_errors", "count", "The number of these calls that failed."),
)
TOKENS_IN_OUT = (
    Column("input_tokens", "count", "Input tokens of the agent's model, cached reads and writes included."),
    Column("output_tokens", "count", "Output tokens of the agent's model, reasoning included."),
)
TOTAL_TOKENS = Column("total_tokens", "count", "Input plus output tokens, or the total that the source states.")
COST = Column("cost", "number", "The cost of the agent's model; 0 with tokens is unknown.")
COST_SOURCE = Column(
    "cost_source",
    "text",
    "stated by the source, estimated from prices (see `%kern cost`), or unknown; missing where nothing was used.",
)

SESSIONS = (
    SESSION_ID,
    Column("session_name", "text", "The title of the session."),
    Column("session_type", "text", "agent, team or workflow."),
    *OWNERS,
    Column("parent_session_id", "text", "The session that this one branches from."),
    Column("fork_run_index", "count", "The last inherited run; -1 if no run is inherited."),
    Column(
        "fork_message_index", "count", "The last inherited message of that run; missing if the whole run is inherited."
    ),
    Column("n_runs", "count", "The number of its own runs, without inherited ones."),
    *CALLS,
    *TOKENS_IN_OUT,
    TOTAL_TOKENS,
    COST,
    COST_SOURCE,
    Column(
        "duration_s",
        "number",
        "Seconds: the wall time if the source states it, else the sum of its runs without members'.",
    ),
    Column("status", "text", "The status of the latest run."),
    Column("metadata", "json", "Additional data about the session."),
    Column("created_at", "time", "The time of creation."),
    Column("updated_at", "time", "The time of the last change."),
)

RUNS = (
    SESSION_ID,
    RUN_INDEX,
    RUN_ID,
    Column("parent_run_id", "text", "For a team member's run: the run of the team."),
    Column("run_type", "text", "agent, team or workflow."),
    *OWNERS,
    Column("status", "text", "PENDING, RUNNING, PAUSED, COMPLETED, CANCELLED, ERROR, REGENERATED or INTERRUPTED."),
    Column("model", "text", "The requested model."),
    Column("model_provider", "text", "The provider of the model."),
    Column("input", "text", "The user's input."),
    Column("output", "text", "The final answer."),
    *CALLS,
    *TOKENS_IN_OUT,
    Column("cache_read_tokens", "count", "Input tokens read from the provider's cache."),
    Column("cache_write_tokens", "count", "Input tokens written to the provider's cache."),
    Column("reasoning_tokens", "count", "Output tokens used for reasoning."),
    TOTAL_TOKENS,
    COST,
    COST_SOURCE,
    Column("duration_s", "number", "Seconds from start to end."),
    Column("time_to_first_token_s", "number", "Seconds from the start to the first token of the answer."),
    Column("error", "text", "The error message."),
    Column("created_at", "time", "The start time."),
    Column("finished_at", "time", "The end time."),
)

MESSAGES = (
    SESSION_ID,
    RUN_ID,
    RUN_INDEX,
    Column("message_index", "count", "The index of the message in its run, from 0."),
    Column("message_id", "text", "The id of the message in its source."),
    Column("role", "text", "system, developer, user, assistant or tool."),
    Column("content", "text", "The text of the message."),
    Column("tool_call_id", "text", "For a tool message: the call that it answers."),
    Column("tool_name", "text", "For a tool message: the name of the tool."),
    Column("model", "text", "The model that wrote the message."),
    Column("input_tokens", "count", "Input tokens of the model, cached ones included."),
    Column("output_tokens", "count", "Output tokens of the model, reasoning included."),
    Column("cost", "number", "The cost of the message; 0 with tokens is unknown."),
    COST_SOURCE,
    Column("created_at", "time", "The time of creation."),
)

TOOL_CALLS = (
    SESSION_ID,
    RUN_ID,
    RUN_INDEX,
    Column("message_index", "count", "The message that made the call."),
    Column("tool_call_id", "text", "The id of the call, unique in its run."),
    Column("tool_name", "text", "The name of the tool."),
    Column("caller", "text", "assistant, or user for a call by a simulated user."),
    Column("args", "json", "The arguments."),
    Column("result", "text", "The return value of the tool."),
    Column("status", "text", "started, completed, failed or unknown."),
    Column("is_error", "flag", "Whether the call failed; missing while the call runs or if the outcome is unknown."),
    Column("duration_s", "number", "Seconds from start to end."),
    Column("created_at", "time", "The time of the call."),
)

SCORES = (
    SESSION_ID,
    Column("run_id", "text", "The rated run; missing if the session is rated."),
    Column("name", "text", "The name of the score, for example reward."),
    Column("value", "number", "The value of the score."),
)

REQUIREMENTS = (
    Column("requirement_id", "text", "The id of the requirement, unique within its run."),
    SESSION_ID,
    RUN_ID,
    Column("kind", "text", "confirmation, user_input, user_feedback, external_execution or handoff."),
    Column("status", "text", "pending, claimed, resolved or expired."),
    Column("tool_call_id", "text", "The pending tool call."),
    Column("tool_name", "text", "The name of the tool."),
    Column("args", "json", "The arguments of the pending tool call."),
    Column("prompt", "text", "The question to the person."),
    Column("assignee", "text", "The person who should answer."),
    Column("approved", "flag", "Whether the call was approved; missing if approval was not requested or is pending."),
    Column("answer", "json", "The answer: the edited arguments, or the requested value."),
    Column("note", "text", "The note of the person who answered."),
    Column("created_at", "time", "The time when the run paused."),
    Column("resolved_at", "time", "The time of the answer."),
    Column("resolved_by", "text", "The person who answered."),
)

FRAMES: dict[str, tuple[Column, ...]] = {
    "sessions": SESSIONS,
    "runs": RUNS,
    "messages": MESSAGES,
    "tool_calls": TOOL_CALLS,
    "scores": SCORES,
    "requirements": REQUIREMENTS,
}

INHERITED = Column("inherited", "flag", "With lineage=True: whether the row is inherited from a parent.")


class JsonRoot(NamedTuple):
    """A JSON object whose values `expand` can select; every frame can select those of sessions."""

    table: str
    column: str
    keys: tuple[str, ...]
    description: str


JSON_ROOTS: dict[str, JsonRoot] = {
    "metadata": JsonRoot("sessions", "metadata", (), "Additional data about the session."),
    "state": JsonRoot("sessions", "session_data", ("session_state",), "The state of the session."),
    "args": JsonRoot("tool_calls", "args", (), "The arguments of the tool call."),
}
