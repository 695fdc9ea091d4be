"""A model's title for a session."""

from __future__ import annotations

from typing import Any

from kern_nb import models
from kern_nb.db import SessionStore
from kern_nb.errors import RunFailed
from kern_nb.records import message_text
from kern_nb.runtime.event_loop import in_thread

_PROMPT = "Give this conversation a title of at most six words. Answer with the title alone."
_INPUT_CHARACTERS = 2_000
_TITLE_CHARACTERS = 80


async def generate_title(store: SessionStore, session_id: str, model: Any, user_id: str | None = None) -> str:
    """Let a model write a title from the beginning of a session.

    Args:
        store: The store of the session.
        session_id: The session.
        model: The model.
        user_id: The owner of the session.

    Raises:
        SessionNotFound: there is no such session.
        BadUsage: the model cannot be used.
        RunFailed: the model failed.
    """
    from pydantic_ai import Agent

    history = await in_thread(lambda: store.history(session_id, user_id=user_id))
    text = "\n".join(f"{message.role}: {message_text(message) or ''}" for message in history)
    async with models.open_model(model) as opened:
        try:
            result = await Agent(opened, instructions=_PROMPT).run(text[:_INPUT_CHARACTERS] or "(no messages)")
        except Exception as error:
            message = f"The model failed to title session {session_id!r}: {type(error).__name__}: {error}"
            raise RunFailed(message, "Set a title yourself: agent.set_session_name('...')") from error
    first_line = next(iter(result.output.strip().splitlines()), "")
    return first_line.strip().strip("\"'").strip()[:_TITLE_CHARACTERS] or "Untitled"
