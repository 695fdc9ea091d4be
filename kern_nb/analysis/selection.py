"""Which sessions and runs a caller means: by references, or by filters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from kern_nb.db.references import Reference
from kern_nb.errors import BadUsage
from kern_nb.records import Run, Session
from kern_nb.text import formatting

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.db.frame_queries import TimeLike

    ReferenceLike: TypeAlias = str | Session | Run
    """``chat`` or ``chat/2``, or a stored session or run."""

_RUN = re.compile(r"(?P<session>.+)/(?P<run>\d{1,18})", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class SessionFilter:
    """Filters on sessions; see `kern_nb.analysis.groups.compare_groups` for the names in ``where``."""

    where: Mapping[str, Any] | None = None
    agent_id: str | None = None
    since: TimeLike | None = None
    until: TimeLike | None = None

    @property
    def is_set(self) -> bool:
        """Whether any filter is set; an empty ``where`` selects every session."""
        return any(value is not None for value in (self.where, self.agent_id, self.since, self.until))

    def __str__(self) -> str:
        fields = (("agent", self.agent_id), ("since", self.since), ("until", self.until))
        parts = [*(self.where or {}).items(), *((name, value) for name, value in fields if value is not None)]
        return ", ".join(f"{name} {value}" for name, value in parts)


def format_reference(reference: ReferenceLike) -> str:
    """Return the text that refers to a session or run.

    Raises:
        BadUsage: The session or run is not stored, or the value is of another type.
    """
    if isinstance(reference, str):
        return reference
    if not isinstance(reference, (Session, Run)):
        is_collection = isinstance(reference, (list, tuple, set))
        example = "compare('chat', 'what-if')" if is_collection else "'chat', or 'chat/2'"
        raise BadUsage(
            f"A reference must be a str, Session or Run, got {formatting.truncate(repr(reference), 60)}.",
            f"Pass one argument per session: {example}." if is_collection else f"For example: {example}.",
        )
    run_index = reference.run_index if isinstance(reference, Run) else None
    if reference.session_id is None or (isinstance(reference, Run) and run_index is None):
        raise BadUsage(f"{reference!r} is not stored.", "Store it first: store.append_run(session_id, run)")
    return str(Reference(reference.session_id, run_index))


def require_session_or_run(reference: Reference) -> Reference:
    """Return the reference; raise BadUsage if it is to a message."""
    if reference.message_index is not None:
        hint = f"Name its run: {reference.session_id}/{reference.run_index}"
        raise BadUsage(f"{str(reference)!r} is a message, not a session or a run.", hint)
    return reference


def require_mapping(where: Any) -> None:
    """Raise BadUsage if a ``where`` filter is neither None nor a mapping."""
    if where is not None and not isinstance(where, Mapping):
        hint = 'For example: where={"domain": "airline"}'
        raise BadUsage(f"where must be a mapping of names to values, got {where!r}.", hint)


def select_sessions(
    store: SessionStore, references: Sequence[ReferenceLike], filters: SessionFilter, user_id: str | None = None
) -> list[Reference]:
    """Resolve references, or filters where there are no references.

    Where a ``user_id`` is given, sessions of other users do not exist for the lookup.

    Returns:
        Each reference once, in the given order; sessions that match the filters, oldest first.

    Raises:
        SessionNotFound: No session matches a reference.
        RunNotFound: A session has no such run.
        AmbiguousReference: Several sessions match a reference.
        BadUsage: There is neither a reference nor a filter, or there are both; a reference is to a message; or no
            session matches the filters.
    """
    require_mapping(filters.where)
    if references and filters.is_set:
        raise BadUsage(f"References exclude filters, got both: {filters}.", "Pass either references or filters.")
    if references:
        return _locate_all(store, list(dict.fromkeys(map(format_reference, references))), user_id)
    if not filters.is_set and user_id is None:
        raise BadUsage(
            "No session or run is named.",
            "For example: %kern summarize conversation_123; in Python also summarize(where={'model': 'gpt-5.2'}).",
        )
    params = {"user_id": user_id, "agent_id": filters.agent_id, "since": filters.since, "until": filters.until}
    ids = list(store.sessions_df(columns=["session_id"], **params)["session_id"])  # type: ignore[arg-type]
    if not ids:
        raise BadUsage("No session matches.", "%kern sessions lists all of them.")
    if not filters.where:
        return [Reference(session_id) for session_id in reversed(ids)]
    from kern_nb.analysis.groups.keys import LabelReader

    matching = LabelReader(store, (), params, filters.where).sessions
    return [Reference(str(session_id)) for session_id in matching["session_id"]]


def _locate_all(store: SessionStore, texts: list[str], user_id: str | None) -> list[Reference]:
    """Resolve the texts of references: full ids by one query, however many they are; prefixes one by one."""
    # A session whose id has a slash takes precedence over a run.
    readings = {text: [Reference(text)] for text in texts}
    for text in texts:
        if match := _RUN.fullmatch(text):
            readings[text].append(Reference(match["session"], int(match["run"])))
    stored_ids: set[str] = set()
    if len(texts) > 1:
        ids = {reading.session_id for text in texts for reading in readings[text]}
        stored_ids = set(store.sessions_df(ids, user_id=user_id, columns=["session_id"])["session_id"])
    references: dict[Reference, None] = {}
    for text in texts:
        stored = [reading for reading in readings[text] if reading.session_id in stored_ids]
        reference = stored[0] if stored else require_session_or_run(store.locate(text, user_id=user_id))
        references[reference] = None
    return list(references)


def with_descendants(ids: Sequence[str], children: Mapping[str | None, Sequence[str]]) -> list[str]:
    """Return some ids, followed by those of their descendants, level by level: of branches, or of members' runs."""
    ordered = list(ids)
    visited = set(ids)  # a damaged store may have a cycle
    for parent_id in ordered:  # the list grows during the loop
        new = [child_id for child_id in children.get(parent_id, ()) if child_id not in visited]
        visited.update(new)
        ordered += new
    return ordered
