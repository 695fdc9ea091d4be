"""Teams with scripted leaders and members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pausing_agents import by_turn, sender

from kern_nb.agent import Agent
from kern_nb.models.scripted import Call, call
from kern_nb.team import Team


def task(member: str, text: str = "do it") -> Call:
    """Create a leader's call of a member."""
    return call("delegate_task_to_member", member_id=member, task=text)


def member(name: str, *answers: Any, heard: list[Any] | None = None, **options: Any) -> Agent:
    """Create an agent with these answers."""
    return Agent(by_turn(*answers, heard=heard), name=name, **options)


def writer(name: str, sent: list[Any], *letters: str, **options: Any) -> Agent:
    """Create a member that sends these letters, each after an approval, and then answers."""
    return member(name, *[call("send", to=one) for one in letters], f"{name} is done", tools=[sender(sent)], **options)


def crew(db: Any, members: Sequence[Agent], *answers: Any, heard: list[Any] | None = None, **options: Any) -> Team:
    """Create a team in the session ``chat`` whose leader has these answers."""
    return Team(members, by_turn(*answers, heard=heard), db=db, **{"session_id": "chat", "name": "Crew"} | options)
