"""Teams whose leaders and members say what a test wants them to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pausing_agents import by_turn, sender

from kern_nb.agent import Agent
from kern_nb.models.scripted import Call, call
from kern_nb.team import Team


def task(member: str, text: str = "do it") -> Call:
    """A leader's call of a member."""
    return call("delegate_task_to_member", member_id=member, task=text)


def member(name: str, *answers: Any, heard: list[Any] | None = None, **options: Any) -> Agent:
    """An agent that gives these answers in turn."""
    return Agent(by_turn(*answers, heard=heard), name=name, **options)


def writer(name: str, sent: list[Any], *letters: str, **options: Any) -> Agent:
    """A member that sends these letters, each once a person allows it, and says that it is done."""
    return member(name, *[call("send", to=one) for one in letters], f"{name} is done", tools=[sender(sent)], **options)


def crew(db: Any, members: Sequence[Agent], *answers: Any, heard: list[Any] | None = None, **options: Any) -> Team:
    """A team in the session ``chat`` whose leader gives these answers in turn."""
    return Team(members, by_turn(*answers, heard=heard), db=db, **{"session_id": "chat", "name": "Crew"} | options)
