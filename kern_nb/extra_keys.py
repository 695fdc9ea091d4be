"""The reserved keys of ``internal``, in which kern_nb stores data of its own, and of other columns.

The ``extra`` of runs and messages belongs to their source: kern_nb gives none of its keys a meaning. Before schema
version 4 it had the keys below, too; see `kern_nb.db.key_upgrades`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# In a user message:
BY_TOOL = "by_tool"  # a tool returned it, beside its result
RETRY = "retry"  # the framework asks the model to retry

PERSON = "person"  # who wrote it while the session was handed off to them

# In an answer:
PARTS = "parts"  # its parts as pydantic-ai dumps them, which the provider requires in the history
RESPONSE_ID = "response_id"  # the provider's id of it

# In a message of an OpenAI Agents SDK session:
ITEMS = "items"  # the items that it stands for, each with its position in the session's memory
UNORDERED = "unordered"  # an item of an earlier message comes after one of these

# In a tool call:
ORIGINAL_ARGS = "asked_args"  # the model's arguments, which a person changed

# In a tool message:
FILES = "files"  # its content has files, stored by their hash
UNKNOWN = "unknown"  # it does not end its call, whose effect is unknown
DURATION_S = "duration_s"  # the duration of its call in seconds
ARGS = "args"  # the arguments of its call, if a person changed them

# In a message of pydantic-ai's:
MODEL_MESSAGE = "model_message"  # the position, in its run, of the message of pydantic-ai that it is a part of

# In a run:
FRAMEWORK = "framework"  # the framework whose attached agent made it, as `kern_nb.bridges` names it
RESUMED_AS = "resumed_as"  # of pydantic-ai: the ids under which the framework resumed it
STATE_ARGUMENT = "given_state"  # the session state that its caller passed, which a rerun passes again
RERUN_OF = "rerun_of"  # the run that it repeats; in a session's metadata: the session or run that was rerun
STEP_PATH = "step_path"  # the path of the workflow's step that it is
STEP = "step"  # the name of that step, in its ``extra``
STEP_OUTPUT = "step_output"  # what that step returned beside its output: whether it succeeded, and stops the workflow
ADDITIONAL_DATA = "additional_data"  # of a workflow: what its caller passed beside the input
TOOL_CALL_ID = "tool_call_id"  # the leader's tool call that it, the run of a team's member, answers
MESSAGE_KEYS = "message_keys"  # of an imported one: what identifies each of its messages, to compare it with its file
MEMORY = "memory"  # a session of the OpenAI Agents SDK made it of items, and may add more
PAUSE = "pause"  # of a paused one of the OpenAI Agents SDK or pydantic-ai: what the framework resumes it with
RESUMED = "resumed"  # the keys of the states with which it was resumed
CANCEL_REQUESTED = "cancel_requested"  # somebody asks the process that writes it to cancel it
CONTINUES = "continues"  # the run that it continues, in a branch within or after that
STATE_BEFORE = "state_before"  # in the first: the session state it started from, which no earlier run has
EVENTS = "events"  # of an agent with ``store_events``: its events, as `kern_nb.events` writes them
STATE_AFTER = "state_after"  # the session's state when it ended, if concurrent runs had changed it, too

# In a session's data:
CONVERSATION = "conversation"  # the record of a conversation of pydantic-ai, with its head
REWOUND_FROM = "rewound_from"  # the session that has its line as it was before its head was first moved

# In a requirement's ``extra``:
INPUT_FIELDS = "fields"  # the arguments that a person enters
FIELD_SCHEMA = "schema"  # of a workflow's step: these arguments with their types, descriptions and possible values
REQUIRED_FIELDS = "required"  # the arguments without which its tool cannot run
QUESTIONS = "questions"  # of user feedback: each question with its options, see `kern_nb.views.feedback`
FIXED_ARGS = "fixed_args"  # its framework cannot run the call with other arguments
METADATA = "metadata"  # what its tool stated when it paused the run
SENDER = "from"  # in a handoff: who handed the session off
OF_SESSION = "of_session"  # it was pending when its session was handed off to its assignee

RUN_KEYS = (STATE_ARGUMENT, RERUN_OF, CONTINUES, STEP_PATH, TOOL_CALL_ID)


def run_internal(extra: Mapping[str, Any], session_state: dict[str, Any] | None = None) -> dict[str, Any]:
    """The ``internal`` of an agent's run: the reserved keys of its ``extra``, and the caller's session state."""
    internal = {key: extra[key] for key in (*RUN_KEYS, ADDITIONAL_DATA) if key in extra}
    return internal | ({STATE_ARGUMENT: session_state} if session_state else {})
