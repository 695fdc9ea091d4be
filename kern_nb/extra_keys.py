"""The reserved keys of ``internal``, in which kern_nb stores data of its own, and of a requirement's ``extra``.

The ``extra`` of runs and messages belongs to their source: kern_nb gives none of its keys a meaning. Before schema
version 4 it had the keys below, too; see `kern_nb.db.key_upgrades`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BY_TOOL = "by_tool"
"""In a user message: a tool returned it, beside its result."""

RETRY = "retry"
"""In a user message: the framework asks the model to retry."""

FILES = "files"
"""In a tool message: its content has files, stored by their hash."""

PARTS = "parts"
"""In an answer: its parts as pydantic-ai dumps them, which the provider requires in the history."""

RESPONSE_ID = "response_id"
"""In an answer: the provider's id of it."""

UNKNOWN = "unknown"
"""In a tool message: it does not end its call, whose effect is unknown."""

DURATION_S = "duration_s"
"""In a tool message: the duration of its call in seconds."""

ARGS = "args"
"""In a tool message: the arguments of its call, if a person changed them."""

ORIGINAL_ARGS = "asked_args"
"""In a tool call whose arguments a person changed: the model's arguments."""

STATE_ARGUMENT = "given_state"
"""In a run: the session state that its caller passed, which a rerun passes again."""

RERUN_OF = "rerun_of"
"""In a run: the run that it repeats; in a session's metadata: the session or run that was rerun."""

STEP_PATH = "step_path"
"""In the run of a workflow's step: the path of the step."""

STEP = "step"
"""In the ``extra`` of the run of a workflow's step: the name of the step."""

TOOL_CALL_ID = "tool_call_id"
"""In the run of a team's member: the leader's tool call that it answers."""

STATE_BEFORE = "state_before"
"""In a session's first run: the session state it started from, which no earlier run has."""

REQUIRED_FIELDS = "required"
"""In a requirement: the arguments without which its tool cannot run."""

METADATA = "metadata"
"""In a requirement: what its tool stated when it paused the run."""

SENDER = "from"
"""In a handoff: who handed the session off."""

RUN_KEYS = (STATE_ARGUMENT, RERUN_OF, STEP_PATH, TOOL_CALL_ID)


def run_internal(extra: Mapping[str, Any], given_state: dict[str, Any] | None = None) -> dict[str, Any]:
    """The ``internal`` of an agent's run: the reserved keys of its ``extra``, and the caller's session state."""
    internal = {key: extra[key] for key in RUN_KEYS if key in extra}
    return internal | ({STATE_ARGUMENT: given_state} if given_state else {})
