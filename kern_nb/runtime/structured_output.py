"""Answers with a schema: what the model is asked for, the object that a run returns, and the JSON that is stored."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_ai import DeferredToolRequests, NativeOutput, PromptedOutput, StructuredDict
from pydantic_ai.exceptions import UserError
from pydantic_ai.models import Model

from kern_nb.errors import BadUsage

_EXAMPLES = "For example: output_schema=Verdict, where `class Verdict(BaseModel)` has typed fields."


class OutputSchema:
    """The schema of an agent's answers.

    Args:
        schema: A pydantic model, a dataclass, a TypedDict or another type that pydantic validates; or a JSON schema of
            an object, as a dict.

    Raises:
        BadUsage: pydantic cannot validate the type, or the JSON schema does not describe an object.
    """

    def __init__(self, schema: Any) -> None:
        if schema is str or isinstance(schema, str) or not (isinstance(schema, Mapping) or callable(schema)):
            raise BadUsage(f"output_schema must be a type or a JSON schema, got {schema!r}.", _EXAMPLES)
        try:
            self._type: Any = StructuredDict(dict(schema)) if isinstance(schema, Mapping) else schema
            self._adapter: TypeAdapter[Any] = TypeAdapter(self._type)
            self._adapter.json_schema()
        except (UserError, PydanticUserError, TypeError) as error:
            raise BadUsage(f"output_schema is not valid: {str(error).splitlines()[0]}", _EXAMPLES) from error

    def output_types(self, model: Model) -> list[Any]:
        """Return pydantic-ai's output types: JSON that the provider enforces, or asks for in the instructions.

        It is never asked for as a tool call, which would be stored among the calls of the agent's tools.
        """
        is_enforced = model.profile.get("supports_json_schema_output", False)
        return [NativeOutput(self._type) if is_enforced else PromptedOutput(self._type), DeferredToolRequests]

    def to_json(self, value: Any) -> Any:
        """Return what is stored of an answer."""
        return self._adapter.dump_python(value, mode="json")

    def from_text(self, text: str) -> Any:
        """Return the object of a stored answer; the text itself if it does not fit the schema."""
        try:
            return self._adapter.validate_json(text)
        except ValidationError:
            return text

    def from_json(self, value: Any) -> Any:
        """Return the object of a stored output; the value itself if it does not fit the schema."""
        try:
            return self._adapter.validate_python(value)
        except ValidationError:
            return value

    @cached_property
    def name(self) -> str:
        """The name of the type."""
        return str(getattr(self._type, "__name__", self._type))
