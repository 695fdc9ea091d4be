"""What Tab offers for each kind of argument: functions of the word so far and the store's name.

A query runs in a thread and is waited for only briefly: a slow disk or store yields what was known before, or nothing,
and its result is there at the next Tab.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Hashable
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from kern_nb import store_registry
from kern_nb.errors import KernError
from kern_nb.magics.verb import FRAMES, PLOTS, STATUSES
from kern_nb.operations.agent_registry import notebook_agents, runners, variables

if TYPE_CHECKING:
    from kern_nb.db import SessionStore
    from kern_nb.records import Session

T = TypeVar("T")

BUDGET_S = 0.05
MAX_SESSIONS = 200
_FRESH_S = 2.0
_MAX_CACHED = 200
_MAX_FILES = 2000

# A session and a prefix of one of its runs; a session, a run and a prefix of a message.
_RUN = re.compile(r"(?P<session>.+)/(?P<run>[^/.]*)\Z", re.DOTALL)
_MESSAGE = re.compile(r"(?P<session>.+)/(?P<run>\d+)\.\d*\Z", re.DOTALL)


class Cache:
    """A small cache in front of slow queries."""

    def __init__(self) -> None:
        self._results: dict[Hashable, tuple[float, list[Any]]] = {}
        self._threads: dict[Hashable, threading.Thread] = {}

    def get(self, key: Hashable, fetch: Callable[[], list[T]]) -> list[T]:
        """Return the result of a query, or an earlier one if it takes longer than the budget or fails."""
        at, result = self._results.get(key, (float("-inf"), []))
        if time.monotonic() - at < _FRESH_S:
            return result
        thread = self._threads.get(key)
        if thread is None or not thread.is_alive():
            thread = threading.Thread(target=self._fetch, args=(key, fetch), name="kern_nb lookup", daemon=True)
            self._threads[key] = thread
            thread.start()
        thread.join(BUDGET_S)
        return self._results.get(key, (at, result))[1]

    def _fetch(self, key: Hashable, fetch: Callable[[], list[Any]]) -> None:
        with contextlib.suppress(Exception):  # Tab has nowhere to show an error
            result = fetch()
            if len(self._results) >= _MAX_CACHED:
                self._results.clear()
            self._results[key] = (time.monotonic(), result)
        self._threads.pop(key, None)


_cache = Cache()


def _query(name: str | None, key: tuple[Hashable, ...], fetch: Callable[[SessionStore], list[T]]) -> list[T]:
    """Query a store through the cache; empty where there is no such store."""
    try:
        store = store_registry.find(name)
    except KernError:
        return []
    return _cache.get((id(store), *key), lambda: fetch(store))


def _query_newest(name: str | None, key: str, fetch: Callable[[list[Session]], list[str]]) -> list[str]:
    return _query(name, (key,), lambda store: fetch(store.list_sessions(limit=MAX_SESSIONS)))


def sessions(_: str, store: str | None) -> list[str]:
    """Return the ids of the newest sessions."""
    return _query_newest(store, "sessions", lambda newest: [session.session_id for session in newest])


def references(word: str, store: str | None) -> list[str]:
    """Return sessions; after ``session/`` its runs, after ``session/2.`` the messages of that run."""
    names = sessions(word, store)
    if (message := _MESSAGE.match(word)) and message["session"] in names:
        return _messages(message["session"], int(message["run"]), store)
    if (run := _RUN.match(word)) and (session_id := run["session"]) in names:
        return _query(
            store,
            ("runs", session_id),
            lambda store: [f"{session_id}/{i}" for i in store.runs_df(session_id, lineage=True)["run_index"]],
        )
    return names


def _messages(session_id: str, run: int, store: str | None) -> list[str]:
    def fetch(store: SessionStore) -> list[str]:
        df = store.messages_df(session_id, lineage=True)
        return [f"{session_id}/{run}.{index}" for index in df.loc[df["run_index"] == run, "message_index"]]

    return _query(store, ("messages", session_id, run), fetch)


def requirements(word: str, store: str | None) -> list[str]:
    """Return the short id of each pending requirement; the full id if the word is longer."""

    def fetch(store: SessionStore) -> list[tuple[str, str]]:
        from kern_nb.operations.inbox import short_ids

        names = short_ids(store, store.requirements())
        return [(id_ if id_.startswith(name) else name, name) for (_, id_), name in names.items()]

    ids = _query(store, ("requirements",), fetch)
    return [short if short.startswith(word) else full for full, short in ids]


def handoffs(word: str, store: str | None) -> list[str]:
    """Return what can be assigned to a person: pending requirements, and sessions."""
    return [*requirements(word, store), *references(word, store)]


def unfinished_runs(word: str, store: str | None) -> list[str]:
    """Return the sessions whose latest run paused or was interrupted; after a slash the runs."""

    def fetch(store: SessionStore) -> list[str]:
        pages = [store.list_sessions(status=status, limit=MAX_SESSIONS) for status in ("PAUSED", "INTERRUPTED")]
        return [session.session_id for page in pages for session in page]

    names = _query(store, ("unfinished_runs",), fetch)
    return [name for name in names if name.startswith(word)] or references(word, store)


def group_names(_: str, store: str | None) -> list[str]:
    """Return what sessions can be grouped by: common columns, and the metadata keys of the newest sessions."""
    keys = _query_newest(store, "group_names", lambda newest: [key for s in newest for key in s.metadata or {}])
    return list(dict.fromkeys(["model", "agent_id", "user_id", *keys]))


def cost_groups(word: str, store: str | None) -> list[str]:
    """Return what costs can be grouped by, and is not in the list yet."""
    return _extend_list(word, ["model", "model_provider", "day", "week", "month", "year", *group_names("", store)])


def columns(word: str, _: str | None) -> list[str]:
    """Return the columns of the frames that are not in the list yet."""
    from kern_nb.db.columns import FRAMES as COLUMNS

    return _extend_list(word, [column.name for frame in FRAMES for column in COLUMNS[frame]])


def json_paths(word: str, store: str | None) -> list[str]:
    """Return paths inside JSON: the keys of the newest sessions' metadata and state, and arguments."""

    def fetch(newest: list[Session]) -> list[str]:
        metadata = [f"metadata.{key}" for session in newest for key in _plain_keys(session.metadata or {})]
        return metadata + [f"state.{key}" for session in newest for key in _plain_keys(session.session_state)]

    return _extend_list(word, [*_query_newest(store, "json_paths", fetch), "args."])


def _plain_keys(value: dict[str, Any]) -> list[str]:
    """Return the keys that can be written in a list of dotted paths."""
    return [key for key in value if isinstance(key, str) and key and not set(".,") & set(key)]


def _extend_list(word: str, names: list[str]) -> list[str]:
    """Return a comma-separated list extended by each name that is not in it."""
    head, comma, _ = word.rpartition(",")
    return [head + comma + name for name in dict.fromkeys(names) if name not in head.split(",")]


def export_formats(_prefix: str, _store: str | None) -> list[str]:
    """The formats that an export writes."""
    from kern_nb.operations.export.targets import FORMATS

    return list(FORMATS)


def formats(_: str, __: str | None) -> list[str]:
    """Return the importers. Their first import takes longer than a Tab may, hence the cache."""

    def fetch() -> list[str]:
        from kern_nb.ingest.registry import load_importers

        return list(load_importers())

    return _cache.get("formats", fetch)


def programs(word: str, _: str | None) -> list[str]:
    """Return the importers whose files have a usual folder, and are not in the list yet."""

    def fetch() -> list[str]:
        from kern_nb.ingest.registry import load_importers

        return [name for name, importer in load_importers().items() if importer.locations]

    return _extend_list(word, _cache.get("programs", fetch))


def paths(word: str, _: str | None) -> list[str]:
    """Return files, and folders with a slash at the end; hidden ones only if the word starts with a dot."""
    folder, slash, prefix = word.rpartition("/")
    typed = folder + slash
    directory = os.path.expanduser(typed or ".")  # noqa: PTH111 - the path is completed as it was written
    deadline = time.monotonic() + BUDGET_S

    def fetch() -> list[str]:
        names = []
        with os.scandir(directory) as entries:
            for entry in islice(entries, _MAX_FILES):
                if time.monotonic() > deadline:
                    break
                if entry.name.startswith(prefix) and (prefix or not entry.name.startswith(".")):
                    names.append(typed + entry.name + ("/" if entry.is_dir() else ""))
        return sorted(names)

    return _cache.get(("paths", os.path.abspath(directory), typed, prefix), fetch)  # noqa: PTH100


def attachable() -> list[str]:
    """The variables that hold an object of a framework whose agents can be attached."""
    from kern_nb.bridges.attachment import find_framework

    return [name for name, value in dict(variables()).items() if not name.startswith("_") and find_framework(value)]


SOURCES: dict[str, Callable[[str, str | None], list[str]]] = {
    "agent_ids": lambda _, __: list(dict.fromkeys(agent.id for agent in notebook_agents().values())),
    "agents": lambda _, __: list(notebook_agents()),  # the variables that hold them
    "runners": lambda _, __: list(runners()),  # with those of attached agents
    "attachable": lambda _, __: attachable(),
    "columns": columns,
    "cost_groups": cost_groups,
    "export_formats": export_formats,
    "formats": formats,
    "frames": lambda _, __: list(FRAMES),
    "group_names": group_names,
    "handoffs": handoffs,
    "json_paths": json_paths,
    "paths": paths,
    "programs": programs,
    "plots": lambda _, __: list(PLOTS),
    "references": references,
    "requirements": requirements,
    "sessions": sessions,
    "statuses": lambda _, __: list(STATUSES),
    "stores": lambda _, __: store_registry.names(),
    "unfinished_runs": unfinished_runs,
}
