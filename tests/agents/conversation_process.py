"""One process of a conversation: says something to an agent and prints the answer. `conversation_process.py TARGET TEXT SESSION`."""

from __future__ import annotations

import re
import sys

from kern_nb import attach
from kern_nb.agent import Agent
from kern_nb.db import SessionStore
from kern_nb.models.scripted import ScriptedModel
from kern_nb.records import Message


def answer(messages: list[Message]) -> str:
    """What a model can say that knows only what it is told now."""
    told = " ".join(str(message.content) for message in messages if message.role == "user")
    name = re.search(r"My name is (\w+)", told)
    if not str(messages[-1].content).startswith("What's my name"):
        return "Nice to meet you."
    return f"Your name is {name[1]}." if name else "I do not know your name."


def an_agent(session_id: str, db: SessionStore | None = None) -> Agent:
    """Alice's agent; on the attached store where it is given none."""
    return Agent(model=ScriptedModel(answer), db=db, session_id=session_id, add_history_to_context=True)


if __name__ == "__main__":
    target, text, session = sys.argv[1:]
    attach(target)
    an_agent(session).print_response(text)
