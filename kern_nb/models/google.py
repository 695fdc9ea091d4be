"""Google's Gemini models, by an API key."""

from __future__ import annotations

from typing import ClassVar

from kern_nb.models.provider import ProviderModel

__all__ = ["Gemini"]


class Gemini(ProviderModel):
    """Google's Gemini models, by an API key; arguments as for `ProviderModel`.

    Example:
        >>> Gemini()
        Gemini(id='gemini-2.5-flash')
    """

    provider: ClassVar[str] = "google"
    default_id: ClassVar[str] = "gemini-2.5-flash"
