"""The inbox: the requirements of paused runs as a table, and how a line names one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kern_nb.operations import agent_registry
from kern_nb.operations.run_index import RunIndex
from kern_nb.records import UNRESOLVED_STATUSES, Requirement
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
    """Return the pending requirements of paused runs, oldest first.

    Args:
        user_id: Only sessions of this user.
        assignee: Only requirements assigned to this person.
        reference: Only this session (``chat``), or this run (``chat/2``) and its members' runs.
        everything: Include resolved and expired requirements.
        store: A store or its name; by default the one in use, else that of the notebook's agents.

    Raises:
        SessionNotFound: The reference names no session.
        RunNotFound: It names no run.
        AmbiguousReference: It names several.

    Example:
        >>> from kern_nb import Requirement, inbox
        >>> from kern_nb.db import InMemoryDb
        >>> store = InMemoryDb()
        >>> run = store.start_run("chat", input="Delete a.txt")
        >>> run = store.pause_run(run.run_id, [Requirement(kind="confirmation", tool_name="delete_file")])
        >>> [(row.run, row.requirement.tool_name) for row in inbox(store=store).rows]
        [('chat/0', 'delete_file')]
    """
    opened = agent_registry.resolve_store(store)
    session_id, run_id = (None, None) if reference is None else _locate(opened, reference)
    requirements = opened.requirements(
        session_id=session_id,
        run_id=run_id,
        user_id=user_id,
        assignee=assignee,
        status=None if everything else UNRESOLVED_STATUSES,
    )
    narrowed = any(value is not None for value in (user_id, assignee, reference))
    runs = RunIndex(opened, (requirement.session_id for requirement in requirements))
    rows = []
    ids = short_ids(opened, requirements)
    for requirement in requirements:
        run, top_level = runs.find(requirement.run_id), runs.top_level(requirement.run_id)
        title = str(top_level or requirement.session_id or "")
        owner = (run.owner if run else None) or ""
        rows.append(requirement_view.InboxRow(requirement, ids[requirement.key], title, owner))
    return Inbox(rows, narrowed=narrowed, store=store if isinstance(store, str) else "")


def _locate(store: SessionStore, reference: str) -> tuple[str | None, str | None]:
    """Return the id of the session, or of the run, that a reference names."""
    location = store.locate(reference)
    if location.run_index is None:
        return location.session_id, None
    return None, RunIndex(store, [location.session_id], lineage=True).at(location.run_index).run_id


def short_ids(store: SessionStore, requirements: list[Requirement]) -> Mapping[tuple[str | None, str], str]:
    """Return for each requirement, by its key, the prefix of its id that is unique in the store.

    Where requirements of several runs have one id, the name is the id of the run and that id.
    """
    if not requirements:
        return {}
    stored = store.sql("SELECT requirement_id FROM requirements")["requirement_id"]
    repeated = set(stored[stored.duplicated()])
    prefixes = requirement_view.shortest_prefixes([requirement.requirement_id for requirement in requirements], stored)
    return {
        (run_id, id_): f"{run_id}/{id_}" if id_ in repeated else prefixes[id_]
        for run_id, id_ in (requirement.key for requirement in requirements)
    }


def find_requirement(store: SessionStore, reference: str) -> Requirement:
    """Return the requirement that a reference names; see `kern_nb.db.requirements.find_requirement` for the errors."""
    from kern_nb.db import mapping, requirements

    with store.read_connection() as connection:
        return mapping.requirement_from_row(requirements.find_requirement(connection, store, reference))


@dataclass(frozen=True, repr=False)
class Inbox:
    """Requirements, oldest first.

    Attributes:
        rows: Each requirement with its short id, its run and its agent.
        narrowed: Whether filters were applied.
        store: The name of the store, if each line must state it.
    """

    rows: list[requirement_view.InboxRow]
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
        """The requirements."""
        return [row.requirement for row in self.rows]

    @cached_property
    def df(self) -> pd.DataFrame:
        """One row per requirement, with the columns and dtypes of the view ``requirements``."""
        import pyarrow as pa

        from kern_nb.db.columns import REQUIREMENTS
        from kern_nb.db.dtypes import to_pandas
        from kern_nb.db.mapping import requirement_row

        kinds = {"time": pa.int64(), "flag": pa.bool_()}
        schema = pa.schema([(column.name, kinds.get(column.kind, pa.string())) for column in REQUIREMENTS])
        stored = map(requirement_row, self.requirements)
        rows = [{column.name: _encode(row[column.name], column.kind) for column in REQUIREMENTS} for row in stored]
        return to_pandas(pa.Table.from_pylist(rows, schema), REQUIREMENTS)

    def _table(self) -> Table:
        empty = "No matching requirements" if self.narrowed else "The inbox is empty: no pending requirements"
        return requirement_view.inbox_table(self.rows, empty=empty, store=self.store)


def _encode(value: Any, kind: str) -> Any:
    """Return a value as a store encodes it, which is what frames are made of."""
    from kern_nb.db import codec

    if value is None or kind not in ("text", "json"):
        return value
    return codec.encode_text(value) if kind == "text" else codec.dumps(value)
