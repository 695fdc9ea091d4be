"""Workflow steps that record their calls, pause, or fail."""

from __future__ import annotations

from typing import Any

from pausing_agents import sender

from kern_nb.agent import Agent
from kern_nb.db import SessionStore
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Message
from kern_nb.workflow import Step, StepInput, Workflow


class Pipeline:
    """Workflows in the session ``chat``, each constructed again, as another process would.

    ``ran`` records the steps that ran, ``sent`` what their agents sent; ``down`` has the names of the steps that fail.
    """

    def __init__(self, store: SessionStore) -> None:
        self.store = store
        self.ran: list[str] = []
        self.sent: list[tuple[str, int]] = []
        self.down: set[str] = set()

    def adds(self, letter: str, **options: Any) -> Step:
        """Create a step that appends a letter to the previous output, or to the input."""

        def add(given: StepInput) -> str:
            self.ran.append(letter)
            if letter in self.down:
                raise ConnectionError(f"{letter} is down")
            return f"{given.previous_step_content or given.input}{letter}"

        return Step(add, name=letter, **options)

    def asks(self, letter: str, **options: Any) -> Step:
        """Create the same step with a confirmation."""
        return self.adds(letter, requires_confirmation=True, **options)

    def agent(self, name: str) -> Agent:
        """Create an agent that sends a letter, and then answers."""

        def answer(messages: list[Message]) -> Any:
            if messages[-1].role != "tool":
                return call("send", to=name)
            if name in self.down:
                raise ConnectionError(f"{name} is down")
            return f"{name} answers"

        return Agent(ScriptedModel(answer), name=name, tools=[sender(self.sent, name="send")])

    def made(self, *steps: Any, **options: Any) -> Workflow:
        """Create the workflow of these steps."""
        return Workflow(list(steps), db=self.store, **{"session_id": "chat"} | options)

    def answer(self, **answer: Any) -> None:
        """Resolve all pending requirements; approve them by default."""
        for requirement in self.store.requirements():
            self.store.resolve(requirement.requirement_id, **(answer or {"approve": True}))

    def runs(self) -> list[Any]:
        """Return the runs of the session."""
        session = self.store.get_session("chat")
        return session.runs if session is not None and session.runs is not None else []
