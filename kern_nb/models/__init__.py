"""Models: a name (``"openai:gpt-5.2"``), or an object that builds a pydantic-ai model.

Creating one of our model objects imports nothing heavy and needs no key; `open_model` does.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from pydantic_ai.models import Model

DEFAULT_MODEL = "openai-responses:gpt-5.2"
"""The model of an agent without one, unless KERN_MODEL is set in the environment."""


@runtime_checkable
class Buildable(Protocol):
    """A model object of kern_nb."""

    def build(self) -> Model:
        """Build the pydantic-ai model."""


@asynccontextmanager
async def open_model(spec: Any) -> AsyncIterator[Model]:
    """Open the model of an object, a name or (None) the default; its connections close with the block.

    It is built each time, in some 20 ms, so that keys and servers are read from the current environment, and a
    connection never meets another event loop than its own. A pydantic-ai model is closed by its owner.

    Raises:
        BadUsage: the model is unknown, or lacks a key or a package.
    """
    from pydantic_ai.models import Model

    if isinstance(spec, Model):
        yield spec
        return
    async with _build(_name_or_default(spec)) as model:
        yield model


def model_name(spec: Any) -> str:
    """Return the name of a model, as a run stores it before the model has answered."""
    if spec is not None and not isinstance(spec, str):
        return str(getattr(spec, "id", None) or getattr(spec, "model_name", None) or type(spec).__name__)
    name: str = _name_or_default(spec)
    return name.partition(":")[2] or name


def _name_or_default(spec: Any) -> Any:
    return spec or os.environ.get("KERN_MODEL") or DEFAULT_MODEL


def _build(spec: Any) -> Model:
    from pydantic_ai.exceptions import UserError
    from pydantic_ai.models import infer_model

    if not isinstance(spec, (str, Buildable)):
        hint = 'Pass a name like "openai:gpt-5.2", or a model object like OpenAIResponses(id=...).'
        raise BadUsage(f"model must be a name or a model object, got {spec!r}.", hint)
    try:
        return infer_model(spec) if isinstance(spec, str) else spec.build()
    except ImportError as error:
        provider = spec.partition(":")[0].partition("-")[0] if isinstance(spec, str) else None
        provider = provider or getattr(spec, "provider", "openai")
        install = f"pip install 'pydantic-ai-slim[{provider}]'"
        raise BadUsage(f"Model {spec!r} needs a missing package: {error}.", install) from error
    except (UserError, ValueError) as error:
        reason = str(error).partition(". ")[0].rstrip(".?")
        hint = 'Write names as provider:name, for example "openai:gpt-5.2".'
        if "api_key" in reason.lower():
            hint = "Set the provider's key in the environment, or use ScriptedModel, which needs none."
        raise BadUsage(f"Cannot use model {spec!r}: {reason}.", hint) from error
