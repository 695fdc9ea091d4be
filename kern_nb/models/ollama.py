"""Models that Ollama serves on this machine or another one."""

from __future__ import annotations

from typing import Any, ClassVar

from kern_nb.models.provider import ProviderModel

__all__ = ["Ollama"]

_HOST = "http://localhost:11434"


class Ollama(ProviderModel):
    """A model of an Ollama server; other arguments as for `ProviderModel`.

    Args:
        id: The name of the model.
        host: The server; this machine's where None.
        settings: See `ProviderModel`.

    Example:
        >>> Ollama(id="qwen3", host="http://gpu:11434")
        Ollama(id='qwen3')
    """

    provider: ClassVar[str] = "ollama"
    default_id: ClassVar[str] = "llama3.1"

    def __init__(self, id: str | None = None, *, host: str | None = None, **settings: Any) -> None:
        settings.setdefault("base_url", f"{(host or _HOST).rstrip('/')}/v1")
        super().__init__(id, **settings)
