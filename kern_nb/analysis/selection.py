"""Which sessions and runs are meant: those that are named, or the sessions that fit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kern_nb.analysis.conversation import format_reference
from kern_nb.db.references import Reference
from kern_nb.errors import BadUsage

if TYPE_CHECKING:
    from kern_nb.analysis.conversation import ReferenceLike
    from kern_nb.db import SessionStore
    from kern_nb.db.frame_queries import When

_RUN = re.compile(r"(?P<session>.+)/(?P<run>\d{1,18})", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class SessionFilter:
    """Which sessions are meant where none is named; see `kern_nb.analysis.groups.compare_groups` for the names."""

    where: Mapping[str, Any] | None = None
    agent_id: str | None = None
    since: When | None = None
    until: When | None = None

    @property
    def says(self) -> bool:
        """Whether it says anything at all; an empty ``where`` means every session."""
        return any(value is not None for value in (self.where, self.agent_id, self.since, self.until))

    def __str__(self) -> str:
        """As a title has it."""
        parts = [f"{name} {value}" for name, value in (self.where or {}).items()]
        parts += [f"agent {self.agent_id}"] if self.agent_id is not None else []
        parts += [f"since {self.since}"] if self.since is not None else []
        parts += [f"until {self.until}"] if self.until is not None else []
        return ", ".join(parts)


def select_sessions(
    store: SessionStore, named: Sequence[ReferenceLike], fitting: SessionFilter, user_id: str | None = None
) -> list[Reference]:
    """The places that are meant, each once, in the order in which they are named; those that fit, oldest first.

    Args:
        store: The store they are in.
        named: Sessions and runs.
        fitting: Which sessions, where none is named.
        user_id: Whose: to others a session is not there.

    Raises:
        SessionNotFound, RunNotFound, AmbiguousReference: a name fits nothing, or several things.
        BadUsage: nothing is named, a message is, or nothing fits.
    """
    if fitting.where is not None and not isinstance(fitting.where, Mapping):
        hint = 'For example: where={"domain": "airline"}'
        raise BadUsage(f"where={fitting.where!r} is no mapping of names to values.", hint)
    if named and fitting.says:
        raise BadUsage(
            f"Both names are given and what fits: {fitting}.", "Name sessions, or say which ones: one of both."
        )
    if named:
        return _located(store, list(dict.fromkeys(map(format_reference, named))), user_id)
    if not fitting.says and user_id is None:
        raise BadUsage(
            "No session or run is named.",
            "For example: %kern summarize conversation_123; in Python also summarize(where={'model': 'gpt-5.2'}).",
        )
    return [Reference(session_id) for session_id in _fitting(store, fitting, user_id)]


def _located(store: SessionStore, texts: list[str], user_id: str | None) -> list[Reference]:
    """The places of names. Whole ids are looked up together, however many they are; prefixes one by one."""
    known: set[str] = set()
    runs = {text: found for text in texts if (found := _RUN.fullmatch(text))}
    if len(texts) > 1:
        ids = {*texts, *(found["session"] for found in runs.values())}
        known = set(store.sessions_df(ids, user_id=user_id, columns=["session_id"])["session_id"])
    places: dict[Reference, None] = {}
    for text in texts:
        run = runs.get(text)
        if text in known:
            place = Reference(text)
        elif run is not None and run["session"] in known:
            place = Reference(run["session"], int(run["run"]))
        else:
            place = store.locate(text, user_id=user_id)
        if place.message_index is not None:
            hint = f"Name its run: {place.session_id}/{place.run_index}"
            raise BadUsage(f"{str(place)!r} is a message, not a session or a run.", hint)
        places[place] = None
    return list(places)


def _fitting(store: SessionStore, fitting: SessionFilter, user_id: str | None) -> list[str]:
    filters = {"user_id": user_id, "agent_id": fitting.agent_id, "since": fitting.since, "until": fitting.until}
    found = list(store.sessions_df(columns=["session_id"], **filters)["session_id"])  # type: ignore[arg-type]
    if not found:
        raise BadUsage("No session fits.", "%kern sessions lists all of them.")
    if fitting.where:
        from kern_nb.analysis.groups.keys import Reader

        reader = Reader(store, (), filters)
        for name, value in fitting.where.items():
            reader.keep(name, value)
        return [str(session_id) for session_id in reader.sessions["session_id"]]
    return found[::-1]
