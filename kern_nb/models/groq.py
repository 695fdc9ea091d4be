"""Models that Groq serves."""

from __future__ import annotations

from typing import ClassVar

from kern_nb.models.provider import ProviderModel

__all__ = ["Groq"]


class Groq(ProviderModel):
    """Models that Groq serves; arguments as for `ProviderModel`.

    Example:
        >>> Groq()
        Groq(id='openai/gpt-oss-120b')
    """

    provider: ClassVar[str] = "groq"
    default_id: ClassVar[str] = "openai/gpt-oss-120b"
