"""Model constructors. A model is named by a string (``"openai:gpt-5.2"``) or made by one of these classes.

`opened` turns either into what pydantic-ai runs. Making one of ours imports nothing heavy and needs no key; opening it
does.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from pydantic_ai.models import Model

DEFAULT = "openai-responses:gpt-5.2"
"""The model of an agent that names none, unless the environment's KERN_MODEL does."""


@runtime_checkable
class Buildable(Protocol):
    """One of our constructors."""

    def build(self) -> Model:
        """The model that pydantic-ai runs."""


@asynccontextmanager
async def opened(spec: Any) -> AsyncIterator[Model]:
    """The model of a constructor, a name, or (None) the default, with connections that end with the block.

    It is made anew each time, some 20 ms: keys and servers are those that the environment names now, and a connection
    never meets another event loop than its own. A model of pydantic-ai's is its owner's to close.

    Raises:
        BadUsage: no model has that name, or it lacks a key or a package.
    """
    from pydantic_ai.models import Model

    if isinstance(spec, Model):
        yield spec
        return
    async with _build(spec or os.environ.get("KERN_MODEL") or DEFAULT) as model:
        yield model


def name_of(spec: Any) -> str:
    """The name of a model, as a run keeps it before the model has answered."""
    if spec is not None and not isinstance(spec, str):
        return str(getattr(spec, "id", None) or getattr(spec, "model_name", None) or type(spec).__name__)
    name = spec or os.environ.get("KERN_MODEL") or DEFAULT
    return name.partition(":")[2] or name


def _build(spec: Any) -> Model:
    from pydantic_ai.exceptions import UserError
    from pydantic_ai.models import infer_model

    if not isinstance(spec, (str, Buildable)):
        raise BadUsage(
            f"{spec!r} is no model.", 'Give a name like "openai:gpt-5.2", or OpenAIResponses(id=...) and its kin.'
        )
    try:
        return infer_model(spec) if isinstance(spec, str) else spec.build()
    except ImportError as error:
        raise BadUsage(f"The model {spec!r} needs a package: {error}.", _install(spec)) from error
    except (UserError, ValueError) as error:
        reason = str(error).partition(". ")[0].rstrip(".?")
        raise BadUsage(f"The model {spec!r} cannot be used: {reason}.", _way_out(reason)) from error


def _install(spec: Any) -> str:
    provider = str(spec).partition(":")[0].partition("-")[0] if isinstance(spec, str) else "openai"
    return f"pip install 'pydantic-ai-slim[{provider}]'"


def _way_out(reason: str) -> str:
    if "api_key" in reason.lower():
        return "Set the provider's key in the environment, or try ScriptedModel, which needs none."
    return 'Names are written provider:name, for example "openai:gpt-5.2".'
