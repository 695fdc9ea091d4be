"""What the agents' tests share: a model's service to talk to, as real clients do, without a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from openai_server import openai_server as run_openai_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openai_server import OpenAIServer


@pytest.fixture
def openai_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    """A server of OpenAI's APIs, to which the environment points as a user's points to the real one.

    `openai_server.requests` is what arrived, `openai_server.answer = in_turn(...)` or a function scripts the answers.
    """
    with run_openai_server() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        monkeypatch.setenv("no_proxy", "127.0.0.1")  # a machine behind a proxy still reaches itself directly
        yield server
