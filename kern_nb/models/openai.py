"""OpenAI's models, and servers with the same protocols: the Responses API, and Chat Completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic_ai.models import Model


class _OpenAI:
    """The settings that both protocols share."""

    def __init__(
        self,
        id: str = "gpt-5.2",
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
        **settings: Any,
    ) -> None:
        self.id = id
        self._api_key = api_key
        self._base_url = base_url
        self._timeout = timeout
        self._max_retries = max_retries
        self._settings = settings

    def __repr__(self) -> str:
        """Show the model; never the key."""
        return f"{type(self).__name__}(id={self.id!r})"

    def _options(self) -> dict[str, Any]:
        """Return the provider and the settings, as parameters of pydantic-ai's models."""
        from openai import OpenAIError
        from pydantic_ai.providers.openai import OpenAIProvider

        try:
            provider = OpenAIProvider(base_url=self._base_url, api_key=self._api_key)
        except OpenAIError as error:
            raise ValueError(str(error)) from error
        if self._max_retries is not None:
            provider.client.max_retries = self._max_retries
        timeout = {} if self._timeout is None else {"timeout": self._timeout}
        return {"provider": provider, "settings": timeout | self._settings or None}


class OpenAIResponses(_OpenAI):
    """A model behind OpenAI's Responses API; arguments as for `OpenAIChat`."""

    def build(self) -> Model:
        """Build the pydantic-ai model."""
        from pydantic_ai.models.openai import OpenAIResponsesModel

        return OpenAIResponsesModel(self.id, **self._options())


class OpenAIChat(_OpenAI):
    """A model behind the Chat Completions API, which most other servers implement too.

    Args:
        id: The provider's name of the model.
        api_key: The key; OPENAI_API_KEY of the environment where None.
        base_url: The server; OPENAI_BASE_URL of the environment where None, else OpenAI's own.
        timeout: The maximum duration of one request, in seconds.
        max_retries: The maximum number of retries after a connection error.
        settings: Further model settings of pydantic-ai: ``temperature``, ``max_tokens`` and so on.
    """

    def build(self) -> Model:
        """Build the pydantic-ai model."""
        from pydantic_ai.models.openai import OpenAIChatModel

        return OpenAIChatModel(self.id, **self._options())


class OpenAILike(OpenAIChat):
    """A model of another server with the Chat Completions API; arguments as for `OpenAIChat`, with ``base_url``."""
