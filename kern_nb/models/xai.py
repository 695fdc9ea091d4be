"""xAI's models."""

from __future__ import annotations

from typing import ClassVar

from kern_nb.models.provider import ProviderModel

__all__ = ["xAI"]


class xAI(ProviderModel):  # noqa: N801 - its name in Agno
    """xAI's models; arguments as for `ProviderModel`.

    Example:
        >>> xAI()
        xAI(id='grok-4')
    """

    provider: ClassVar[str] = "xai"
    default_id: ClassVar[str] = "grok-4"
