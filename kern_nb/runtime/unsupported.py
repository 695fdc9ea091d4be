"""Parameters of Agno's agents, teams and workflows that kern_nb does not have, each with the reason and another way.

They are refused by name, because ignoring one would change silently what an agent does. `docs/agno.md` lists them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar, cast

from kern_nb.errors import BadUsage

F = TypeVar("F", bound=Callable[..., None])


class Refusal(NamedTuple):
    """Why a parameter is refused, in a sentence that ends with "not a part of kern_nb"; and another way."""

    reason: str
    hint: str


_RECORD = "Leave it out; or keep your agent of Agno, and record it: kern_nb.attach_agent(agent)"
_IN_INSTRUCTIONS = "Write it in instructions, which may be a function of the run_context."

_BY_REASON = {
    Refusal("knowledge bases and retrieval are", _RECORD): (
        "knowledge", "knowledge_filters", "knowledge_retriever", "enable_agentic_knowledge_filters", "search_knowledge",
        "add_knowledge_to_context", "add_search_knowledge_instructions", "update_knowledge", "references_format",
        "callable_knowledge_cache_key",
    ),
    Refusal("memories beyond a session are", _RECORD): (
        "memory_manager", "enable_agentic_memory", "enable_user_memories", "update_memory_on_run",
        "add_memories_to_context", "learning", "add_learnings_to_context", "culture_manager",
    ),
    Refusal("guardrails and hooks are", _RECORD): ("pre_hooks", "post_hooks", "tool_hooks", "guardrails"),
    Refusal("reasoning loops are", _RECORD): (
        "reasoning", "reasoning_model", "reasoning_agent", "reasoning_min_steps", "reasoning_max_steps",
    ),
    Refusal("a second model that parses, rewrites or extends answers is", _RECORD): (
        "parser_model", "parser_model_prompt", "output_model", "output_model_prompt", "followups", "num_followups",
        "followup_model",
    ),
    Refusal("models to fall back on are", "Pass one model: pydantic_ai.models.fallback.FallbackModel(first, second)"): (
        "fallback_config", "fallback_models",
    ),
    Refusal("compaction of the context is", "history_token_budget=... lets the summary replace older runs."): (
        "compaction", "compress_tool_results", "compression_manager", "offload_tool_results",
    ),
    Refusal("skills and file systems of an agent are", "A session has files: run_context.workspace, in a tool."): (
        "skills", "filesystem", "sandbox",
    ),
    Refusal("dependencies of tools and prompts are", "Pass the values in session_state, or to the tools themselves."): (
        "dependencies", "add_dependencies_to_context",
    ),
    Refusal("parts of the system message beside description and instructions are", _IN_INSTRUCTIONS): (
        "system_message", "system_message_role", "introduction", "expected_output", "additional_context",
        "use_instruction_tags", "add_name_to_context", "add_datetime_to_context", "add_location_to_context",
        "datetime_format", "timezone_identifier", "add_member_tools_to_context", "get_member_information_tool",
    ),
    Refusal("other ways to build the messages are", "Write it in instructions, or in the input of the run."): (
        "additional_input", "build_context", "build_user_context", "user_message_role",
    ),
    Refusal("limits and choices of tools are", "max_requests=... limits the requests of a run."): (
        "tool_call_limit", "tool_choice",
    ),
    Refusal("schemas of inputs are", "Validate the input before the run: agent.run(Order.model_validate(values))"): (
        "input_schema",
    ),
    Refusal("modes of structured answers are", "output_schema=... is enough; the mode is what the model can do."): (
        "structured_outputs", "use_json_mode", "parse_response",
    ),
    Refusal("files of answers are", "Write run.get_content_as_string() to the file."): ("save_response_to_file",),
    Refusal("other stores of media are", "store_media=True stores each file once, by its hash."): ("media_storage",),
    Refusal("media that only tools see are", "Let a tool read them: run_context.workspace"): ("send_media_to_model",),
    Refusal("delayed storage of runs is", "Leave it out: each message is stored as it comes."): ("checkpoint",),
    Refusal("caches of functions that return tools are", "Pass the tools themselves."): (
        "cache_callables", "callable_tools_cache_key", "callable_members_cache_key",
    ),
    Refusal("debug logs of agents are", "Look at the run: %kern show, or run.messages."): (
        "debug_mode", "debug_level",
    ),
    Refusal("telemetry is", "Leave it out: nothing is sent anywhere."): ("telemetry",),
    Refusal("printed runs of members are", "Use %kern show, or team.store.member_runs(run.run_id)."): (
        "show_members_responses",
    ),
    Refusal("loops over tasks are", "A Workflow has loops: Loop(steps=[team], ...)"): ("max_iterations",),
}  # fmt: skip

REFUSALS = {name: refusal for refusal, names in _BY_REASON.items() for name in names}

# Those of workflows, which include some that agents have.
_OF_STEPS = Refusal("settings of a workflow for its agents are", "Pass it to the agents among the steps.")
WORKFLOW_REFUSALS = REFUSALS | {
    "agent": Refusal("an agent that decides whether a workflow runs is", "Give an agent a tool: workflow.run"),
    "store_executor_outputs": Refusal("steps without their runs are", "Leave it out: each step is a stored run."),
    "store_media": _OF_STEPS,
    "add_session_state_to_context": _OF_STEPS,
}

# The values that change nothing; for parameters that are not listed, None and False.
_ACCEPTED: dict[str, tuple[Any, ...]] = {
    "add_learnings_to_context": (None, False, True),
    "add_search_knowledge_instructions": (None, False, True),
    "build_context": (None, True),
    "build_user_context": (None, True),
    "cache_callables": (None, False, True),
    "checkpoint": (None, "runs", "tool-batch"),
    "debug_level": (None, 1),
    "max_iterations": (None, 10),
    "num_followups": (None, 3),
    "parse_response": (None, True),
    "references_format": (None, "json"),
    "search_knowledge": (None, False, True),
    "send_media_to_model": (None, True),
    "store_executor_outputs": (None, True),
    "store_media": (None, True),
    "system_message_role": (None, "system"),
    "user_message_role": (None, "user"),
}


def _is_accepted(name: str, value: Any) -> bool:
    values = _ACCEPTED.get(name, (None, False))
    return any(value is accepted or (isinstance(value, str) and value == accepted) for accepted in values)


def refuse_unsupported(initialize: F) -> F:
    """Decorate a constructor so that it refuses a parameter of Agno's that kern_nb does not have, with the reason.

    Raises:
        BadUsage: such a parameter has a value that changes what an agent does.
    """
    own = inspect.signature(initialize).parameters

    @wraps(initialize)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        refusals = WORKFLOW_REFUSALS if self.session_type == "workflow" else REFUSALS
        for name in [name for name in kwargs if name in refusals and name not in own]:
            if not _is_accepted(name, kwargs.pop(name)):
                reason, hint = refusals[name]
                message = f"{type(self).__name__}({name}=...) is refused: {reason} not a part of kern_nb."
                raise BadUsage(message, hint)
        initialize(self, *args, **kwargs)

    return cast("F", checked)
