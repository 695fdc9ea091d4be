"""A small shop for reruns: an agent whose tools change what is stored, and ways to look at a whole store."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from kern_nb.agent import Agent
from kern_nb.models.scripted import ScriptedModel, call

TURNS = ("Two apples, please", "And a pear", "What do I have?")


def add(session_state: dict[str, Any], item: str, count: int = 1) -> dict[str, int]:
    """Put something into the basket; the basket."""
    basket = session_state.setdefault("basket", {})
    basket[item] = basket.get(item, 0) + count
    return dict(basket)


def seller(item: str = "apple", *, name: str = "model-a", heard: list[Any] | None = None) -> ScriptedModel:
    """A model that in every run puts one thing into the basket, and then says what is in it."""

    def script(messages: list[Any]) -> Any:
        if heard is not None:
            heard.append(messages)
        last = messages[-1]
        return f"You have {last.content}" if last.role == "tool" else call("add", item=item)

    return ScriptedModel(script, id=name)


def shop(store: Any, **options: Any) -> Agent:
    """The agent of the shop."""
    return Agent(**{"model": seller(), "db": store, "tools": [add], "name": "Shop", "instructions": "Sell."} | options)


def recorded(store: Any, session_id: str = "chat", turns: Any = TURNS, **options: Any) -> Agent:
    """The shop after a conversation of three runs, each with a call."""
    agent = shop(store, session_id=session_id, **options)
    for turn in turns:
        agent.run(turn)
    return agent


def rows(store: Any, session_id: str | None = None) -> dict[str, list[Any]]:
    """All that is stored, of one session or of all, by table."""
    found = {}
    with store.read_connection() as connection:
        for table in store.tables.metadata.sorted_tables:
            if "session_id" not in table.c:
                continue
            query = sa.select(table) if session_id is None else sa.select(table).where(table.c.session_id == session_id)
            found[table.name] = sorted((dict(row) for row in connection.execute(query).mappings()), key=repr)
    return found


def counts(store: Any) -> dict[str, int]:
    """How many rows each table has."""
    return {
        name.removeprefix("agno_sessions").strip("_") or "sessions": len(found) for name, found in rows(store).items()
    }


def said(messages: Any) -> list[tuple[str, Any]]:
    """Who said what; of an assistant that calls tools, their names."""
    return [(m.role, [c.tool_name for c in m.tool_calls] if m.tool_calls else m.content) for m in messages]


def told(heard: Any, at: int = 0) -> list[tuple[str, Any]]:
    """What a model was told, without its instructions."""
    return [one for one in said(heard[at]) if one[0] != "system"]
