"""A title for a session, made by a model from how it began."""

from __future__ import annotations

from typing import Any

from kern_nb import models
from kern_nb.db import SessionStore
from kern_nb.errors import RunFailed
from kern_nb.records import message_text
from kern_nb.runtime.threads import in_thread

_PROMPT = "Give this conversation a title of at most six words. Answer with the title alone."
_FIRST = 2_000
_LONGEST = 80


async def made(store: SessionStore, session_id: str, model: Any, user_id: str | None = None) -> str:
    """The title.

    Raises:
        SessionNotFound: there is no such session.
        BadUsage: the model cannot be used.
        RunFailed: it gave no answer.
    """
    from pydantic_ai import Agent

    history = await in_thread(lambda: store.history(session_id, user_id=user_id))
    said = "\n".join(f"{message.role}: {message_text(message) or ''}" for message in history)
    async with models.opened(model) as opened:
        try:
            answer = (await Agent(opened, instructions=_PROMPT).run(said[:_FIRST] or "(nothing was said)")).output
        except Exception as error:
            reason = f"The model gave no title for session {session_id!r}: {type(error).__name__}: {error}"
            raise RunFailed(reason, "Give one yourself: agent.set_session_name('...')") from error
    first = next(iter(answer.strip().splitlines()), "")
    return first.strip().strip("\"'").strip()[:_LONGEST] or "Untitled"
