"""Cohere's models."""

from __future__ import annotations

from typing import ClassVar

from kern_nb.models.provider import ProviderModel

__all__ = ["Cohere"]


class Cohere(ProviderModel):
    """Cohere's models; arguments as for `ProviderModel`.

    Example:
        >>> Cohere()
        Cohere(id='command-a-03-2025')
    """

    provider: ClassVar[str] = "cohere"
    default_id: ClassVar[str] = "command-a-03-2025"
