"""What paused runs wait for: the inbox as one call, its table, and how to name a requirement in a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kern_nb.operations import agent_registry
from kern_nb.operations.run_index import RunIndex
from kern_nb.records import UNANSWERED, Requirement
from kern_nb.text.tables import Table
from kern_nb.views import requirements as requirement_view

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.db import SessionStore


def inbox(
    *,
    user_id: str | None = None,
    assignee: str | None = None,
    reference: str | None = None,
    everything: bool = False,
    store: str | SessionStore | None = None,
) -> Inbox:
    """What paused runs wait for, oldest first.

    Args:
        user_id: In the sessions of one user.
        assignee: What one person is to answer.
        reference: Of one session (``chat``), or of one run (``chat/2``) and its members' runs.
        everything: What was answered, or is too late, too.
        store: A store or the name of one; where None the one in use, else that of the agents here.

    Raises:
        SessionNotFound, RunNotFound, AmbiguousReference: the reference names nothing, or several things.
    """
    found = agent_registry.resolve_store(store)
    session_id, run_id = (None, None) if reference is None else _named(found, reference)
    requirements = found.requirements(
        session_id=session_id,
        run_id=run_id,
        user_id=user_id,
        assignee=assignee,
        status=None if everything else UNANSWERED,
    )
    narrowed = any(value is not None for value in (user_id, assignee, reference))
    places = RunIndex(found, (one.session_id for one in requirements))
    rows = []
    keys = short_ids(found, requirements)
    for one in requirements:
        own, top_level = places.find(one.run_id), places.top_level(one.run_id)
        run = str(top_level) if top_level else one.session_id or ""
        rows.append(requirement_view.Waiting(one, keys[one.requirement_id], run, (own.owner if own else None) or ""))
    return Inbox(rows, narrowed=narrowed, store=store if isinstance(store, str) else "")


def _named(store: SessionStore, reference: str) -> tuple[str | None, str | None]:
    """The session, or the run, that a reference names."""
    place = store.locate(reference)
    if place.run_index is None:
        return place.session_id, None
    df = store.runs_df(place.session_id, lineage=True)
    return None, str(df.loc[df["run_index"] == place.run_index, "run_id"].iloc[0])


def short_ids(store: SessionStore, requirements: list[Requirement]) -> Mapping[str, str]:
    """What stands for each requirement in a line: as much of its id as tells it from every other of the store."""
    if not requirements:
        return {}
    every = store.sql("SELECT requirement_id FROM requirements")["requirement_id"]
    return requirement_view.keys([one.requirement_id for one in requirements], every)


def find_requirement(store: SessionStore, reference: str) -> Requirement:
    """The requirement that a reference names.

    Raises:
        RequirementNotFound, AmbiguousReference: it names none, or several.
    """
    from kern_nb.db import mapping, requirements

    with store.reading() as connection:
        return mapping.requirement_of(requirements.find(connection, store, reference))


@dataclass(frozen=True, repr=False)
class Inbox:
    """Requirements, oldest first.

    Attributes:
        rows: Each requirement with what stands for it in a line, its run and its agent.
        narrowed: Whether filters left some out.
        store: The name of the store, where that is to be written with each line.
    """

    rows: list[requirement_view.Waiting]
    narrowed: bool = False
    store: str = field(default="", compare=False)

    def __repr__(self) -> str:
        return str(self._table())

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Requirement]:
        return iter(self.requirements)

    def _repr_html_(self) -> str:
        return self._table().html()

    @property
    def requirements(self) -> list[Requirement]:
        """The requirements themselves."""
        return [row.requirement for row in self.rows]

    @cached_property
    def df(self) -> pd.DataFrame:
        """One row a requirement, with the columns and dtypes of the view ``requirements``."""
        import pyarrow as pa

        from kern_nb.db.columns import REQUIREMENTS
        from kern_nb.db.dtypes import to_pandas
        from kern_nb.db.mapping import requirement_row

        rows = [requirement_row(one) for one in self.requirements]
        kinds = {"time": pa.int64(), "flag": pa.bool_()}
        columns = {
            c.name: pa.array([_stored(row[c.name], c.kind) for row in rows], kinds.get(c.kind, pa.string()))
            for c in REQUIREMENTS
        }
        return to_pandas(pa.table(columns), REQUIREMENTS)

    def _table(self) -> Table:
        empty = "Nothing that fits is waited for" if self.narrowed else "The inbox is empty: no run waits for an answer"
        return requirement_view.table(self.rows, empty=empty, store=self.store)


def _stored(value: Any, kind: str) -> Any:
    """A value as a store keeps it, which is what frames are made of."""
    from kern_nb.db import codec

    if value is None or kind not in ("text", "json"):
        return value
    return codec.encode_text(value) if kind == "text" else codec.dumps(value)
