"""Parameters of Agno's agents, teams and workflows that belong to no session, and why kern_nb does not have them.

They are refused by name, because ignoring one would change silently what an agent does. `docs/agno.md` lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from kern_nb.errors import BadUsage

F = TypeVar("F", bound=Callable[..., None])

_BY_REASON = {
    "knowledge bases and retrieval are": (
        "knowledge", "knowledge_filters", "knowledge_retriever", "enable_agentic_knowledge_filters", "search_knowledge",
        "add_knowledge_to_context", "add_search_knowledge_instructions", "update_knowledge", "references_format",
    ),
    "memories beyond a session are": (
        "memory_manager", "enable_agentic_memory", "enable_user_memories", "update_memory_on_run",
        "add_memories_to_context", "learning", "add_learnings_to_context", "culture_manager",
    ),
    "guardrails and hooks are": ("pre_hooks", "post_hooks", "tool_hooks", "guardrails"),
    "reasoning loops are": (
        "reasoning", "reasoning_model", "reasoning_agent", "reasoning_min_steps", "reasoning_max_steps",
    ),
    "a second model that parses or rewrites answers is": (
        "parser_model", "parser_model_prompt", "output_model", "output_model_prompt", "followups", "followup_model",
    ),
    "compaction of the context is": (
        "compaction", "compress_tool_results", "compression_manager", "offload_tool_results",
    ),
    "skills and file systems of an agent are": ("skills", "filesystem"),
}  # fmt: skip

REASONS = {name: reason for reason, names in _BY_REASON.items() for name in names}
"""The reason for each refused parameter, as the beginning of a sentence that ends with "not a part of kern_nb"."""


def refuse_unsupported(initialize: F) -> F:
    """Decorate a constructor so that it refuses a parameter of Agno's that is out of scope, with the reason.

    Raises:
        BadUsage: such a parameter has a value other than None or False.
    """

    @wraps(initialize)
    def checked(self: object, *args: Any, **kwargs: Any) -> None:
        for name in [name for name in kwargs if name in REASONS]:
            if kwargs.pop(name) not in (None, False):
                message = f"{type(self).__name__}({name}=...) is refused: {REASONS[name]} not a part of kern_nb."
                hint = "Leave it out; or keep your agent of Agno, and record it: kern_nb.attach_agent(agent)"
                raise BadUsage(message, hint)
        initialize(self, *args, **kwargs)

    return cast("F", checked)
