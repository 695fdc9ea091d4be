"""Read sessions and runs as records, for the formats of other programs: what is their own, and what is a copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from kern_nb.batches import batched
from kern_nb.db import SessionStore
from kern_nb.db.references import Reference
from kern_nb.db.views import ESTIMATED
from kern_nb.extra_keys import PARTS
from kern_nb.records import Message, Run, Session, Usage

_TEXT_KEYS = ("thinking", "reasoning", "text", "content")
_REASONING_TYPES = frozenset({"thinking", "reasoning", "reasoning_text"})


@dataclass(frozen=True)
class Conversation:
    """A session as it is exported, or one of its runs, which is a session of its own.

    Attributes:
        session_id: Its id in the file.
        session: The session.
        runs: Its runs in order, without those of members and steps.
        members: The runs of members and steps, by the id of the run that they belong to.
        copied: The ids of the runs that are counted elsewhere: those that a branch inherits, and copies of these.
        estimated: The messages whose cost is an estimate, by run id and index; the index of a run's own usage is None.
        scores: The scores of the whole session.
    """

    session_id: str
    session: Session
    runs: list[Run]
    members: dict[str, list[Run]] = field(default_factory=dict)
    copied: frozenset[str] = frozenset()
    estimated: frozenset[tuple[str, int | None]] = frozenset()
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def owner(self) -> str | None:
        """The agent, team or workflow."""
        return self.session.agent_id or self.session.team_id or self.session.workflow_id


def read_conversations(store: SessionStore, references: Sequence[Reference]) -> Iterator[Conversation | None]:
    """Yield each session or run; None for one that was deleted in between."""
    for session_id, run_index, _ in references:
        session = store.get_session(session_id)
        yield None if session is None else _read(store, session, run_index)


def _read(store: SessionStore, session: Session, run_index: int | None) -> Conversation | None:
    every = session.runs or []
    ids = {run.run_id for run in every}
    members: dict[str, list[Run]] = {}
    roots = []
    for run in every:
        if run.parent_run_id in ids:
            members.setdefault(str(run.parent_run_id), []).append(run)
        else:
            roots.append(run)
    copies, estimated = _read_marks(store, list(ids))
    if run_index is not None:
        runs = [run for run in every if run.run_index == run_index]
        session_id = f"{session.session_id}-run-{run_index}"
        return Conversation(session_id, session, runs, members, estimated=estimated) if runs else None
    copied = copies | {run.run_id for run in every if run.session_id != session.session_id}
    return Conversation(
        session.session_id, session, roots, members, copied, estimated, _read_scores(store, session.session_id)
    )


def _read_marks(store: SessionStore, run_ids: list[str]) -> tuple[frozenset[str], frozenset[tuple[str, int | None]]]:
    """The runs that are copies, and the runs and messages whose cost is an estimate."""
    r, m = store.tables.runs, store.tables.messages
    copies: set[str] = set()
    estimated: set[tuple[str, int | None]] = set()
    with store.read_connection() as connection:
        for batch in batched(run_ids):
            is_marked = r.c.copied_from.is_not(None) | (r.c.cost_source == ESTIMATED)
            query = sa.select(r.c.run_id, r.c.copied_from, r.c.cost_source).where(r.c.run_id.in_(batch), is_marked)
            for run_id, copied_from, source in connection.execute(query):
                copies |= set() if copied_from is None else {run_id}
                estimated |= {(run_id, None)} if source == ESTIMATED else set()
            of_messages = sa.select(m.c.run_id, m.c.message_index)
            of_messages = of_messages.where(m.c.run_id.in_(batch), m.c.cost_source == ESTIMATED)
            estimated |= {(run_id, index) for run_id, index in connection.execute(of_messages)}
    return frozenset(copies), frozenset(estimated)


def _read_scores(store: SessionStore, session_id: str) -> dict[str, float]:
    c = store.tables.scores.c
    query = sa.select(c.name, c.value).where(c.session_id == session_id, c.run_id.is_(None)).order_by(c.name)
    with store.read_connection() as connection:
        return {name: value for name, value in connection.execute(query) if name is not None and value is not None}


def messages_of(run: Run) -> list[Message]:
    """The messages of a run; without any, its input and output."""
    if run.messages:
        return run.messages
    ends = (("user", run.input), ("assistant", run.output))
    return [Message(role=role, content=content) for role, content in ends if content is not None]


def usage_of(run: Run, estimated: frozenset[tuple[str, int | None]]) -> Usage | None:
    """The usage of a run as its source states it, else that of its messages, without estimated costs."""
    usages = []
    for message in run.messages:
        if message.role == "user" or message.from_history or message.usage is None:
            continue
        is_estimate = (run.run_id, message.message_index) in estimated
        usages.append(message.usage.model_copy(update={"cost": None}) if is_estimate else message.usage)
    summed, stated = Usage.total(usages), run.usage
    if stated is not None and (run.run_id, None) in estimated:
        stated = stated.model_copy(update={"cost": None})
    if stated is None or summed is None:
        return stated or summed
    return summed.model_copy(update={name: value for name, value in stated.model_dump().items() if value is not None})


def stated_cost(usage: Usage) -> float | None:
    """The cost of a usage; 0 with tokens is unknown, as in the frames."""
    has_tokens = (usage.input_tokens or 0) + (usage.output_tokens or 0) > 0
    return None if usage.cost == 0 and has_tokens else usage.cost


def reasoning_of(message: Message) -> str | None:
    """The text of a model's reasoning, from the parts of a message or those that a provider requires back."""
    parts = message.content if isinstance(message.content, list) else []
    texts = [text for part in parts if is_reasoning(part) and (text := _reasoning_text(part))]
    if not texts:
        stored = message.internal.get(PARTS)
        stored = [part for part in (stored if isinstance(stored, list) else ()) if isinstance(part, dict)]
        contents = [part.get("content") for part in stored if part.get("part_kind") == "thinking"]
        texts = [text for text in contents if isinstance(text, str) and text]
    return "\n".join(texts) or None


def is_reasoning(part: Any) -> bool:
    """Whether a part is a model's reasoning."""
    return isinstance(part, dict) and isinstance(part.get("type"), str) and part["type"] in _REASONING_TYPES


def _reasoning_text(part: dict[str, Any]) -> str | None:
    for key in (*_TEXT_KEYS, "summary"):
        value = part.get(key)
        items = value if isinstance(value, list) else [value]
        texts = [item.get("text") if isinstance(item, dict) else item for item in items]
        if text := "\n".join(text for text in texts if isinstance(text, str) and text):
            return text
    return None
