"""The text that a run sends to its model: instructions, and ``{key}`` filled in from the session state."""

from __future__ import annotations

import inspect
import re
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from kern_nb.runtime.context import RunContext
    from kern_nb.runtime.settings import AgentSettings

INSTRUCTIONS_HINT = "Pass a text, a list of texts, or a function that returns one."

_PLACEHOLDER = re.compile(r"(?<!\$)\{([^{}\n]+)\}")  # ``${key}`` belongs to a shell or another template


def has_placeholders(text: str | None) -> bool:
    """Whether a text may have placeholders."""
    return text is not None and _PLACEHOLDER.search(text) is not None


def fill_placeholders(text: str, values: Mapping[str, Any]) -> str:
    """Replace each ``{key}`` by its value; unknown keys and other braces, as in JSON, remain.

    Values are inserted as they are: a placeholder within one is not replaced.
    """

    def replace(match: re.Match[str]) -> str:
        key = match.group(1)
        return str(values[key]) if key in values else match.group(0)

    return _PLACEHOLDER.sub(replace, text)


def _placeholder_values(settings: AgentSettings, context: RunContext) -> Mapping[str, Any]:
    user = {} if context.user_id is None else {"user_id": context.user_id}
    return ChainMap({"current_run_id": context.run_id}, context.session_state, settings.metadata, user)


def prepare_prompt(prompt: Any, settings: AgentSettings, context: RunContext) -> Any:
    """Return an input as it is sent: placeholders of a text are filled in, also beside files; texts become lines."""
    parts = prompt if isinstance(prompt, list) else [prompt]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) > 1:
        return "\n".join(texts) if len(texts) == len(parts) else prompt
    if not texts or not settings.resolve_in_context:
        return prompt
    text = fill_placeholders(texts[0], _placeholder_values(settings, context))
    return text if prompt is texts[0] else [text if part is texts[0] else part for part in parts]


async def load_instructions(settings: AgentSettings, context: RunContext, summary: str | None) -> str | None:
    """Load the system message of a run: the instructions, with placeholders filled in, the summary and the state."""
    instructions = await settings.load_instructions(context)
    if instructions and settings.resolve_in_context:
        instructions = fill_placeholders(instructions, _placeholder_values(settings, context))
    parts = [instructions] if instructions else []
    parts += [f"Summary of the conversation so far:\n{summary}"] if summary else []
    if settings.add_session_state:
        parts.append(f"<session_state>\n{context.session_state}\n</session_state>")
    return "\n\n".join(parts) or None


@dataclass(frozen=True)
class InstructionTexts:
    """The texts of an agent that its system message has, in their order.

    Attributes:
        instructions: A text, several, or a function that returns one.
        closing: What follows the instructions.
    """

    description: str | None
    role: str | None
    instructions: Any
    closing: str | None


async def evaluate_instructions(texts: InstructionTexts, context: RunContext | None) -> str | None:
    """Return the texts of an agent as one; instructions that a function returns only with a context.

    Raises:
        BadUsage: the function returns neither a text nor a list of texts.
    """
    value = texts.instructions
    if callable(value) and context is not None:
        from kern_nb.runtime.iteration import IterationFailed, resolve

        try:
            value = await resolve(_call_instructions(value, context))
        except IterationFailed as failed:
            raise failed.cause from None
    if not isinstance(value, str | Sequence | None) or not all(isinstance(line, str) for line in value or ()):
        raise BadUsage(f"The instructions function must return a text, got {value!r}.", INSTRUCTIONS_HINT)
    parts = [f"<your_role>\n{texts.role}\n</your_role>"] if texts.role else []
    parts += [value if isinstance(value, str) else _join_instructions(value)] if value else []
    parts += [texts.closing] if texts.closing else []
    body = "\n\n".join(parts)
    separator = "\n\n" if texts.role else "\n"
    return separator.join(text for text in (texts.description, body) if text) or None


def _call_instructions(function: Callable[..., Any], context: RunContext) -> Any:
    """Call a function for instructions. Parameters are filled in by name, as a tool's are; any other gets the run."""
    values = context.injectable_values()
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        is_variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if parameter.name not in values and (is_variadic or parameter.default is not parameter.empty):
            continue
        value = values.get(parameter.name, context)
        if parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(value)
        else:
            keywords[parameter.name] = value
    return function(*positional, **keywords)


def _join_instructions(instructions: Sequence[str]) -> str:
    """Join instructions to one text: several as a list, in which a text of several lines is a paragraph."""
    if len(instructions) == 1:
        return instructions[0]
    is_multiline = ["\n" in text.strip() for text in instructions]
    items = [text if is_long else f"- {text.strip()}" for text, is_long in zip(instructions, is_multiline, strict=True)]
    return ("\n\n" if any(is_multiline) else "\n").join(items)
