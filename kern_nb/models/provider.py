"""`ProviderModel`: the model of one of pydantic-ai's providers, by the provider's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pydantic_ai.models import Model


class ProviderModel:
    """The base class of models: a subclass names its provider.

    Args:
        id: The provider's name of the model.
        api_key: The key; that of the environment where None.
        base_url: The server; the provider's own where None.
        settings: Model settings of pydantic-ai: ``temperature``, ``max_tokens`` and so on.
    """

    provider: ClassVar[str]
    """Its name in pydantic-ai, which is also the extra that installs what it needs."""

    default_id: ClassVar[str]

    def __init__(
        self, id: str | None = None, *, api_key: str | None = None, base_url: str | None = None, **settings: Any
    ) -> None:
        self.id = id or self.default_id
        self._provider_options = {"api_key": api_key, "base_url": base_url}
        self._settings = settings

    def __repr__(self) -> str:
        """Show the model; never the key."""
        return f"{type(self).__name__}(id={self.id!r})"

    def build(self) -> Model:
        """Build the pydantic-ai model."""
        from pydantic_ai.models import infer_model
        from pydantic_ai.providers import Provider, infer_provider_class

        options = {name: value for name, value in self._provider_options.items() if value is not None}

        def provider(name: str) -> Provider[Any]:
            return infer_provider_class(name)(**options)

        model = infer_model(f"{self.provider}:{self.id}", provider_factory=provider)
        if not self._settings:
            return model
        model_class: Any = type(model)  # the constructors have the same parameters; that of the base class has not
        with_settings: Model = model_class(model.model_name, provider=provider(self.provider), settings=self._settings)
        return with_settings
