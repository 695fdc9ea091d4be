"""OpenAI's models, and servers that speak its protocols: the Responses API, and Chat Completions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic_ai.models import Model
    from pydantic_ai.providers.openai import OpenAIProvider


class _OpenAI:
    """What both protocols need.

    Args:
        id: The model's name, as the provider spells it.
        api_key: The key; OPENAI_API_KEY of the environment where None.
        base_url: The server; OPENAI_BASE_URL of the environment where None, else OpenAI's own.
        timeout: Seconds that one request may take.
        max_retries: How often a request that failed on the way is made again.
        settings: What else the model is told: ``temperature``, ``max_tokens`` and so on, as pydantic-ai names them.
    """

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
        """The model; never the key."""
        return f"{type(self).__name__}(id={self.id!r})"

    def _provider(self) -> OpenAIProvider:
        from openai import OpenAIError
        from pydantic_ai.providers.openai import OpenAIProvider

        try:
            provider = OpenAIProvider(base_url=self._base_url, api_key=self._api_key)
        except OpenAIError as error:
            raise ValueError(str(error)) from error
        if self._max_retries is not None:
            provider.client.max_retries = self._max_retries
        return provider

    def _told(self) -> Any:
        """The settings, as pydantic-ai takes them."""
        given = {} if self._timeout is None else {"timeout": self._timeout}
        return given | self._settings or None


class OpenAIResponses(_OpenAI):
    """A model behind OpenAI's Responses API; arguments as for `OpenAIChat`."""

    def build(self) -> Model:
        """The model that pydantic-ai runs."""
        from pydantic_ai.models.openai import OpenAIResponsesModel

        return OpenAIResponsesModel(self.id, provider=self._provider(), settings=self._told())


class OpenAIChat(_OpenAI):
    """A model behind the Chat Completions API, which most other servers speak too.

    Args:
        id: The model's name, as the provider spells it.
        api_key: The key; OPENAI_API_KEY of the environment where None.
        base_url: The server; OPENAI_BASE_URL of the environment where None, else OpenAI's own.
        timeout: Seconds that one request may take.
        max_retries: How often a request that failed on the way is made again.
        settings: What else the model is told: ``temperature``, ``max_tokens`` and so on, as pydantic-ai names them.
    """

    def build(self) -> Model:
        """The model that pydantic-ai runs."""
        from pydantic_ai.models.openai import OpenAIChatModel

        return OpenAIChatModel(self.id, provider=self._provider(), settings=self._told())
