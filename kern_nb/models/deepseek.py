"""DeepSeek's models."""

from __future__ import annotations

from typing import ClassVar

from kern_nb.models.provider import ProviderModel

__all__ = ["DeepSeek"]


class DeepSeek(ProviderModel):
    """DeepSeek's models; arguments as for `ProviderModel`.

    Example:
        >>> DeepSeek()
        DeepSeek(id='deepseek-chat')
    """

    provider: ClassVar[str] = "deepseek"
    default_id: ClassVar[str] = "deepseek-chat"
