"""Attempts after a failure: of the model, whose calls or answer are not valid, and of a request to its provider."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import (
    ModelConnectionError,
    ModelHTTPError,
    ModelRateLimitError,
    ModelServerError,
    ModelUnavailableError,
    RetryModelRequest,
)
from pydantic_ai.messages import ModelResponse
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.tools import RunContext as PydanticContext

from kern_nb.runtime.context import RunContext

DEFAULT_INVALID_CALLS = 3
"""How often a model may repeat an invalid call or answer, where the agent does not say."""

_TRANSIENT = (ModelConnectionError, ModelRateLimitError, ModelServerError, ModelUnavailableError)
_TRANSIENT_STATUS = (408, 409, 425, 429)
_SERVER_ERROR = 500  # and above


@dataclass(frozen=True)
class RetryOptions:
    """See `kern_nb.agent.Agent` for each; None stands for the default of each kind of failure."""

    retries: int | None = None
    delay_s: float = 1
    exponential_backoff: bool = False

    @property
    def invalid_calls(self) -> int:
        """How often in a row the model may repeat an invalid call of one tool, or an invalid answer."""
        return DEFAULT_INVALID_CALLS if self.retries is None else self.retries

    def capabilities(self) -> list[AbstractCapability[RunContext]]:
        """Return what repeats failed requests, for pydantic-ai."""
        return [RequestRetries(self)] if self.retries else []


@dataclass
class RequestRetries(AbstractCapability[RunContext]):
    """Sends a request again, if its provider is busy, fails, or cannot be reached."""

    options: RetryOptions

    async def on_model_request_error(
        self, ctx: PydanticContext[RunContext], *, request_context: ModelRequestContext, error: Exception
    ) -> ModelResponse:
        """Wait, and repeat the request; raise the error if it is permanent, or after the last attempt."""
        n = request_context.attempt
        if not _is_transient(error) or n > (self.options.retries or 0):
            raise error
        await asyncio.sleep(self.options.delay_s * (2 ** (n - 1) if self.options.exponential_backoff else 1))
        raise RetryModelRequest


def _is_transient(error: Exception) -> bool:
    if isinstance(error, ModelHTTPError):
        return error.status_code in _TRANSIENT_STATUS or error.status_code >= _SERVER_ERROR
    return isinstance(error, _TRANSIENT)
