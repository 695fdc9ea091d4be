"""The model of an agent of the SDK, by its name and provider."""

from __future__ import annotations

from typing import Any

from agents.models import get_default_model


def describe_model(agent: Any, run_config: Any = None) -> tuple[str | None, str | None]:
    """The name and the provider of the model that an agent uses in a run; None for what is unknown."""
    config = run_config.get("model") if isinstance(run_config, dict) else getattr(run_config, "model", None)
    model = config or agent.model or get_default_model()
    if isinstance(model, str):
        *prefixes, _ = model.removeprefix("litellm/").split("/")
        return model, prefixes[0] if prefixes else "openai"
    name = getattr(model, "model", None)
    is_openai = type(model).__module__.startswith("agents.models.openai")
    return name if isinstance(name, str) else type(model).__name__, "openai" if is_openai else None
