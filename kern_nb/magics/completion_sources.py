"""What Tab offers for each kind of argument: functions from the word so far, and the store it is about, to words."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from itertools import islice

from kern_nb import store_registry
from kern_nb.errors import KernError
from kern_nb.magics.kinds import FRAMES, PLOTS, STATUSES
from kern_nb.magics.lookup import BUDGET_S, Lookup
from kern_nb.operations import agent_registry

MOST_SESSIONS = 200
_MOST_FILES = 2000

# A session and the run of it that is being written; a message of the run.
_RUN = re.compile(r"(?P<session>.+)/(?P<run>[^/.]*)\Z", re.DOTALL)
_MESSAGE = re.compile(r"(?P<session>.+)/(?P<run>\d+)\.\d*\Z", re.DOTALL)

_lookup = Lookup()


def sessions(_: str, store: str | None) -> list[str]:
    """The ids of the newest sessions."""
    try:
        found = store_registry.find(store)
    except KernError:
        return []
    return _lookup.get(
        (id(found), "sessions"), lambda: [session.session_id for session in found.list_sessions(limit=MOST_SESSIONS)]
    )


def references(word: str, store: str | None) -> list[str]:
    """Sessions; after ``session/`` its runs, after ``session/2.`` the messages of that run."""
    names = sessions(word, store)
    if (message := _MESSAGE.match(word)) and message["session"] in names:
        return _messages(message["session"], int(message["run"]), store)
    if (run := _RUN.match(word)) and run["session"] in names:
        return _runs(run["session"], store)
    return names


def _runs(session_id: str, store: str | None) -> list[str]:
    found = store_registry.find(store)

    def ask() -> list[str]:
        return [f"{session_id}/{index}" for index in found.runs_df(session_id, lineage=True)["run_index"]]

    return _lookup.get((id(found), "runs", session_id), ask)


def _messages(session_id: str, run: int, store: str | None) -> list[str]:
    found = store_registry.find(store)

    def ask() -> list[str]:
        df = found.messages_df(session_id, lineage=True)
        return [f"{session_id}/{run}.{index}" for index in df.loc[df["run_index"] == run, "message_index"]]

    return _lookup.get((id(found), "messages", session_id, run), ask)


def requirements(word: str, store: str | None) -> list[str]:
    """What stands for each requirement that waits; its whole id where more of that is written already."""
    try:
        found = store_registry.find(store)
    except KernError:
        return []

    def ask() -> list[str]:
        from kern_nb.operations.inbox import short_ids

        keys = short_ids(found, found.requirements())
        return [part for name, key in keys.items() for part in (key, name)]

    known = _lookup.get((id(found), "requirements"), ask)
    pairs = list(zip(known[::2], known[1::2], strict=True))
    return [key if key.startswith(word) else name for key, name in pairs]


def waiting(word: str, store: str | None) -> list[str]:
    """What can be handed to a person: what waits, and sessions."""
    return [*requirements(word, store), *references(word, store)]


def unfinished(word: str, store: str | None) -> list[str]:
    """Sessions whose latest run paused or was interrupted; after a slash the runs."""
    try:
        found = store_registry.find(store)
    except KernError:
        return []

    def ask() -> list[str]:
        pages = [found.list_sessions(status=status, limit=MOST_SESSIONS) for status in ("PAUSED", "INTERRUPTED")]
        return [session.session_id for page in pages for session in page]

    names = _lookup.get((id(found), "unfinished"), ask)
    return [name for name in names if name.startswith(word)] or references(word, store)


def agents(_: str, __: str | None) -> list[str]:
    """The variables that hold agents."""
    return list(agent_registry.notebook_agents())


def agent_ids(_: str, __: str | None) -> list[str]:
    """The ids of the agents that the notebook has."""
    return list(dict.fromkeys(one.id for one in agent_registry.notebook_agents().values()))


def stores(_: str, __: str | None) -> list[str]:
    """The names of the attached stores."""
    return store_registry.names()


def frames(_: str, __: str | None) -> list[str]:
    """The frames."""
    return list(FRAMES)


def plots(_: str, __: str | None) -> list[str]:
    """The kinds of plots."""
    return list(PLOTS)


def names(_: str, store: str | None) -> list[str]:
    """What tells sessions apart: the keys of the newest ones' metadata, and columns that many have in common."""
    try:
        found = store_registry.find(store)
    except KernError:
        return []

    def ask() -> list[str]:
        newest = found.list_sessions(limit=MOST_SESSIONS)
        return list(dict.fromkeys(key for session in newest for key in session.metadata or {}))

    return list(dict.fromkeys(["model", "agent_id", "user_id", *_lookup.get((id(found), "names"), ask)]))


def columns(word: str, _: str | None) -> list[str]:
    """The columns of the frames that are not on the list yet."""
    from kern_nb.db.columns import FRAMES as COLUMNS

    return _going_on(word, [column.name for frame in FRAMES for column in COLUMNS[frame]])


def inside(word: str, store: str | None) -> list[str]:
    """Values inside JSON: the keys that metadata and state of the newest sessions have, and arguments."""
    try:
        found = store_registry.find(store)
    except KernError:
        return []

    def ask() -> list[str]:
        newest = found.list_sessions(limit=MOST_SESSIONS)
        states = [(session.session_data or {}).get("session_state") for session in newest]
        objects = {"metadata": [session.metadata for session in newest], "state": states}
        return [f"{root}.{key}" for root, those in objects.items() for one in those for key in _plain_keys(one)]

    return _going_on(word, [*_lookup.get((id(found), "inside"), ask), "args."])


def _plain_keys(value: object) -> list[str]:
    """The keys that can be written in a list of dotted paths."""
    keys = value if isinstance(value, dict) else {}
    return [key for key in keys if isinstance(key, str) and key and not set(".,") & set(key)]


def _going_on(word: str, names: list[str]) -> list[str]:
    """A list that has begun, with each name that may come next."""
    begun, comma, _ = word.rpartition(",")
    return [begun + comma + name for name in dict.fromkeys(names) if name not in begun.split(",")]


def statuses(_: str, __: str | None) -> list[str]:
    """The statuses of a run."""
    return list(STATUSES)


def formats(_: str, __: str | None) -> list[str]:
    """The importers; the import of them all takes longer than a Tab may, the first time."""

    def ask() -> list[str]:
        from kern_nb.ingest.formats import IMPORTERS

        return list(IMPORTERS)

    return _lookup.get("formats", ask)


def paths(word: str, _: str | None) -> list[str]:
    """Files and folders, these with a slash at their end; hidden ones only where the word asks for them."""
    folder, slash, start = word.rpartition("/")
    written = folder + slash
    place = os.path.expanduser(written or ".")  # noqa: PTH111 - the path is completed as it was written
    deadline = time.monotonic() + BUDGET_S

    def ask() -> list[str]:
        found = []
        with os.scandir(place) as entries:
            for entry in islice(entries, _MOST_FILES):
                if time.monotonic() > deadline:
                    break
                if entry.name.startswith(start) and (start or not entry.name.startswith(".")):
                    found.append(written + entry.name + ("/" if entry.is_dir() else ""))
        return sorted(found)

    return _lookup.get(("paths", os.path.abspath(place), written, start), ask)  # noqa: PTH100


OFFERS: dict[str, Callable[[str, str | None], list[str]]] = {
    "agent_ids": agent_ids,
    "agents": agents,
    "columns": columns,
    "formats": formats,
    "frames": frames,
    "inside": inside,
    "names": names,
    "paths": paths,
    "plots": plots,
    "references": references,
    "requirements": requirements,
    "sessions": sessions,
    "statuses": statuses,
    "stores": stores,
    "unfinished": unfinished,
    "waiting": waiting,
}
