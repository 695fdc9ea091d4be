"""Mistral's models."""

from __future__ import annotations

from typing import ClassVar

from kern_nb.models.provider import ProviderModel

__all__ = ["MistralChat"]


class MistralChat(ProviderModel):
    """Mistral's models; arguments as for `ProviderModel`.

    Example:
        >>> MistralChat()
        MistralChat(id='mistral-large-latest')
    """

    provider: ClassVar[str] = "mistral"
    default_id: ClassVar[str] = "mistral-large-latest"
