"""Models behind OpenRouter."""

from __future__ import annotations

from typing import ClassVar

from kern_nb.models.provider import ProviderModel

__all__ = ["OpenRouter"]


class OpenRouter(ProviderModel):
    """Models behind OpenRouter; arguments as for `ProviderModel`.

    Example:
        >>> OpenRouter()
        OpenRouter(id='openai/gpt-5.2')
    """

    provider: ClassVar[str] = "openrouter"
    default_id: ClassVar[str] = "openai/gpt-5.2"
