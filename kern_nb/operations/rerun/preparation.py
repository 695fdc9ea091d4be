"""What is found out before anything is written: the store, the agent with its changes, what the branch will say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from kern_nb import models, store_registry
from kern_nb.agent import Agent, Instructions
from kern_nb.db import SessionStore, session_writes
from kern_nb.db.references import Reference
from kern_nb.errors import BadUsage, NoStore, OwnerMismatch, SessionNotFound
from kern_nb.extra_keys import RERUN_OF
from kern_nb.operations.rerun import planning
from kern_nb.operations.rerun.result import Rerun
from kern_nb.records import Run, Session, text_of
from kern_nb.runtime.session_owner import SessionOwner, owner_fields
from kern_nb.views.rerun import in_words

_MADE_UP = 10
"""So many random digits tell reruns apart; a whole UUID would fill the tables that compare them."""


@dataclass(frozen=True)
class Wish:
    """What was asked for."""

    named: str | Session | Run
    agent: SessionOwner | None
    message: Any
    model: Any
    instructions: Instructions
    tools: Sequence[Any] | None
    name: str | None
    onward: bool
    store: str | SessionStore | None

    @property
    def reference(self) -> str:
        """What is run again, as people write it."""
        if isinstance(self.named, str):
            return self.named
        index = self.named.run_index if isinstance(self.named, Run) else None
        if isinstance(self.named, (Run, Session)) and self.named.session_id is not None:
            return str(Reference(self.named.session_id, index))
        raise BadUsage(f"{self.named!r} names nothing in a store.", "For example: rerun('chat/2', agent)")

    @property
    def changes(self) -> dict[str, Any]:
        """What the agent has otherwise."""
        asked = {"model": self.model, "instructions": self.instructions, "tools": self.tools}
        return {name: value for name, value in asked.items() if value is not None}


def prepare(wish: Wish) -> tuple[Rerun, Callable[[], None]]:
    """The rerun, none of whose inputs is given yet, and what writes its branch."""
    if wish.agent is not None and not isinstance(wish.agent, SessionOwner):
        raise BadUsage(f"{wish.agent!r} is no agent.", "Give the agent, team or workflow itself.")
    if wish.name is not None and (not isinstance(wish.name, str) or not wish.name):
        raise BadUsage(f"name={wish.name!r} is no name.", "Give a string: name='what-if'.")
    store, place = _located(wish)
    session = store.get_session(place.session_id, runs=False)
    if session is None:  # deleted in between
        raise SessionNotFound(f"There is no session {place.session_id!r}.", "List them with %kern sessions.")
    values = isinstance(wish.agent, SessionOwner) and not isinstance(wish.agent, Agent)
    plan = planning.plan(store, place, message=wish.message, onward=wish.onward, as_it_is=values)
    session_id = wish.name or f"rerun-{uuid4().hex[:_MADE_UP]}"
    who = _runner(wish, session, plan.runs[0], store)
    agent = who.variant(db=store, session_id=session_id, user_id=session.user_id)
    changed = _changed(wish, agent)
    fields = _fields(agent, session, place, plan.runs[0], changed)
    title = wish.name or _title(place, agent, changed)

    def branch() -> None:
        where: dict[str, Any] = {"after": None, "before": plan.before, "name": title, "new_session_id": session_id}
        store.write(
            lambda connection: session_writes.branch(connection, store, session.session_id, **where, fields=fields)
        )

    of_run = place.run_index is not None and not wish.onward and not plan.is_cut
    original = Reference(place.session_id, place.run_index) if of_run else place
    return Rerun(original, session_id, [], agent, store, changed, plan.inputs, plan.skipped, of_run), branch


def _located(wish: Wish) -> tuple[SessionStore, Reference]:
    """What is run again, and the store it is in, which must be the agent's if that has one."""
    own = wish.agent.db if wish.agent is not None else None
    if wish.store is not None:
        store = store_registry.find(wish.store)
    else:
        store = own or (wish.agent.store if wish.agent is not None else store_registry.current_store())
    if own is not None and not _same(own, store):
        raise _elsewhere(wish, own, store)
    try:
        return store, store.locate(wish.reference)
    except SessionNotFound:
        if own is not None and (there := _in_use_with(wish.reference)) is not None:
            raise _elsewhere(wish, own, there) from None
        raise


def _in_use_with(reference: str) -> SessionStore | None:
    """The store in use, if that is where the reference leads."""
    try:
        store = store_registry.current_store()
        store.locate(reference)
    except (NoStore, SessionNotFound):
        return None
    return store


def _elsewhere(wish: Wish, own: SessionStore, store: SessionStore) -> BadUsage:
    return BadUsage(
        f"{wish.reference} is in {store.url}, and {wish.agent!r} keeps its runs in {own.url}.",
        "Give agent.variant(db=store), or an agent without a db of its own.",
    )


def _same(one: SessionStore, other: SessionStore) -> bool:
    """Whether two stores are one place."""
    return one is other or (
        ":memory:" not in one.url and (one.database, one.tables.name) == (other.database, other.tables.name)
    )


def _runner(wish: Wish, session: Session, run: Run, store: SessionStore) -> SessionOwner:
    """Who runs, with the changes; where nobody is named, an agent of what is recorded.

    Raises:
        BadUsage: the record does not hold enough for one; or the one that is named takes no such change.
        OwnerMismatch: the session is another user's than the agent's.
    """
    if wish.agent is None:
        return _recorded(wish, session, run, store)
    if None not in (wish.agent.user_id, session.user_id) and wish.agent.user_id != session.user_id:
        raise OwnerMismatch(
            f"Session {session.session_id!r} belongs to another user than {wish.agent.user_id!r}, whose agent this is.",
            "Give an agent of the session's user, or of none.",
        )
    return wish.agent.variant(**wish.changes)


def _recorded(wish: Wish, session: Session, run: Run, store: SessionStore) -> Agent:
    if wish.model is None:
        raise BadUsage(f"Nobody is named to run {wish.reference} again.", "Give an agent, or a model for one without.")
    if run.run_type != "agent":
        raise BadUsage(f"{wish.reference} was run by a {run.run_type}, which no record holds.", "Give it: agent=...")
    calls = store.tool_calls_df(session.session_id, lineage=True)
    called = calls.loc[calls["caller"] != "user", "tool_name"].dropna().unique().tolist()
    if called and wish.tools is None:
        said = f"{session.session_id} has calls of {', '.join(called)}, which no record holds."
        raise BadUsage(said, "Give an agent, or tools=[...].")
    data = session.agent_data or {}
    told = next((text_of(message.content) for message in run.messages if message.role == "system"), None)
    name, known = data.get("name"), data.get("instructions")
    made: dict[str, Any] = {"instructions": known if isinstance(known, str) else told} | wish.changes
    return Agent(id=run.agent_id or None, name=name if isinstance(name, str) and name else None, **made)


def _changed(wish: Wish, agent: SessionOwner) -> dict[str, Any]:
    """What differs by request, as the new session's metadata says it."""
    found: dict[str, Any] = {}
    if wish.model is not None:
        found["model"] = models.model_name(wish.model)
    if wish.instructions is not None:
        given = wish.instructions
        listed = given if isinstance(given, str) or callable(given) else "\n".join(given)
        found["instructions"] = listed if isinstance(listed, str) else getattr(listed, "__name__", repr(listed))
    if wish.tools is not None and isinstance(agent, Agent):
        given_tools = agent._given_tools  # noqa: SLF001 - as they were given: whether they are tools is seen later
        found["tools"] = [getattr(one, "name", None) or getattr(one, "__name__", repr(one)) for one in given_tools]
    return found | ({} if wish.message is None else {"message": True})


def _fields(
    agent: SessionOwner, session: Session, place: Reference, run: Run, changed: dict[str, Any]
) -> dict[str, Any]:
    """The fields of the branch that are not its parent's: whose it is, and what it repeats."""
    owner = owner_fields(agent)
    kind, data = owner["session_type"], owner.pop("owner_data")
    of: dict[str, Any] = {"session_id": place.session_id}
    if place.run_index is not None:
        of |= {"run_index": place.run_index, "run_id": run.run_id}
    if place.message_index is not None:
        of["message_index"] = place.message_index
    metadata = {RERUN_OF: of, "agent": agent.id, "changed": changed}
    if isinstance(agent, Agent):
        metadata["model"] = models.model_name(agent.model)  # in place of what a benchmark said of the original
    nobody = dict.fromkeys(("agent_id", "team_id", "workflow_id"))
    of_kind = {f"{kind}_data": (getattr(session, f"{kind}_data") or {}) | data}
    return nobody | owner | of_kind | {"metadata": (session.metadata or {}) | metadata}


def _title(place: Reference, agent: SessionOwner, changed: dict[str, Any]) -> str:
    what = f", {said}" if (said := ", ".join(describe_changes(changed))) else ""
    return f"{place} again, by {agent.name or agent.id}{what}"
