"""Anthropic's models."""

from __future__ import annotations

from typing import ClassVar

from kern_nb.models.provider import ProviderModel

__all__ = ["Claude"]


class Claude(ProviderModel):
    """Anthropic's models; arguments as for `ProviderModel`.

    Example:
        >>> Claude()
        Claude(id='claude-sonnet-4-5')
    """

    provider: ClassVar[str] = "anthropic"
    default_id: ClassVar[str] = "claude-sonnet-4-5"
