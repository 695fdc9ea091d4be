"""Twenty sessions at once from one agent: nothing of one in another. Neither messages nor state nor files."""

from __future__ import annotations

import asyncio
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from pydantic_ai.messages import BinaryContent, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import FunctionModel

from kern_nb.agent import Agent
from kern_nb.db import open_store
from kern_nb.interop.media import load_content

SESSIONS = 20
TURNS = 2
NAMES = [f"word{i:02}" for i in range(SESSIONS)]


def words(text: str) -> set[str]:
    """Which sessions' words are in a text."""
    return set(re.findall(r"word\d\d", text))


def picture(name: str) -> bytes:
    """A file of one session's own; large enough to be told apart by more than its first bytes."""
    return b"\x89PNG" + bytes(2000) + name.encode()


def model(messages, info):
    """Repeats every session's word that it finds in anything it is told, and counts the files; first calls a tool."""
    parts = [part for message in messages if message.kind == "request" for part in message.parts]
    given = [one for part in parts if isinstance(part.content, list) for one in part.content]
    files = [one.data.decode("latin-1") for one in given if isinstance(one, BinaryContent)]
    found = words(f"{messages} {info.instructions} {files}")
    asked = messages[-1].parts[-1]
    if asked.part_kind == "user-prompt":
        prompt = asked.content if isinstance(asked.content, str) else asked.content[0]
        return ModelResponse(parts=[ToolCallPart("note", {"word": prompt.split()[-1]})])
    return ModelResponse(parts=[TextPart(f"I know {' '.join(sorted(found))} by {len(files)} files.")])


class Meeting:
    """A tool in which all sessions are at once, or none gets on."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(SESSIONS)

    def note(self, session_state: dict, run_context, word: str) -> str:
        """Note a word in the session's state."""
        session_state["words"] = [*session_state["words"], word]
        session_state["deep"]["er"].append(word)
        self.barrier.wait(timeout=60)
        return f"noted {word} for {run_context.user_id} in {run_context.session_id}: {session_state}"


def an_agent(store, meeting: Meeting) -> Agent:
    """One definition for all, with whatever could be shared by mistake: a state, instructions made for each run."""

    def instructions(run_context) -> str:
        return f"You talk to {run_context.user_id}: {run_context.session_state}"

    return Agent(
        FunctionModel(model),
        db=store,
        tools=[meeting.note],
        instructions=instructions,
        session_state={"words": [], "deep": {"er": []}},
        add_history_to_context=True,
        cache_session=True,
    )


def by_threads(agent: Agent) -> dict[str, list[str]]:
    """All sessions at once, each in a thread; what was answered."""

    def talk(name: str) -> list[str]:
        said = []
        for _ in range(TURNS):
            said.append(agent.run(**turn(name)).output)
            agent.get_session(f"of {name}")  # the next run is added to what is cached
        return said

    with ThreadPoolExecutor(SESSIONS) as pool:
        return dict(zip(NAMES, pool.map(talk, NAMES), strict=True))


def by_asyncio(agent: Agent) -> dict[str, list[str]]:
    """All sessions at once in one event loop."""

    async def talk(name: str) -> list[str]:
        return [(await agent.arun(**turn(name))).output for _ in range(TURNS)]

    async def all_of_them() -> list[list[str]]:
        return await asyncio.gather(*map(talk, NAMES))

    return dict(zip(NAMES, asyncio.run(all_of_them()), strict=True))


def turn(name: str) -> dict:
    """What a session's user says."""
    return {
        "input": f"note {name}",
        "session_id": f"of {name}",
        "user_id": f"user {name}",
        "session_state": {f"given {name}": name},
        "images": [picture(name)],
    }


@pytest.mark.parametrize("at_once", [by_threads, by_asyncio])
def test_concurrent_sessions_are_isolated(persistent_target, at_once):
    """The model of each is told its own words alone; its rows, its state and its files hold no other's."""
    with open_store(persistent_target) as store:
        agent = an_agent(store, Meeting())
        answers = at_once(agent)

        # The file of the first turn comes again with the history of the second.
        assert answers == {name: [f"I know {name} by 1 files.", f"I know {name} by 2 files."] for name in NAMES}
        assert agent.session_id is None
        assert agent._default_state == {"words": [], "deep": {"er": []}}
        for name in NAMES:
            session = store.get_session(f"of {name}", user_id=f"user {name}")
            noted = [name] * TURNS
            assert session.session_state == {"words": noted, "deep": {"er": noted}, f"given {name}": name}
            assert words(repr(session.model_dump())) == {name}
            assert [run.status for run in session.runs] == ["COMPLETED"] * TURNS
            assert [[m.role for m in run.messages] for run in session.runs] == [
                ["system", "user", "assistant", "tool", "assistant"]
            ] * TURNS
            for run in session.runs:
                text, image = load_content(run.messages[1].content, store)
                assert (text, image.data) == (f"note {name}", picture(name))
            cached = agent.get_session(f"of {name}")
            assert words(repr(cached.model_dump())) == {name}
            assert [run.run_id for run in cached.runs] == [run.run_id for run in session.runs]
        with store.read_connection() as connection:  # a picture that was sent twice is kept once
            assert connection.execute(sa.select(sa.func.count()).select_from(store.tables.blobs)).scalar() == SESSIONS
        assert store.check()
