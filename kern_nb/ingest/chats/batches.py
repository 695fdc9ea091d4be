"""Batches of providers: results name their request by ``custom_id``, and the file with the requests lies beside."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path
from typing import Any

from kern_nb.ingest.chats.fields import find_id
from kern_nb.ingest.parsing.values import to_object
from kern_nb.ingest.source import Source, Value

_SUFFIXES = frozenset({".json", ".jsonl", ".ndjson"})
_LISTS = ("requests", "data", "results")


def iterate_records(value: Any) -> Iterator[Any]:
    """Yield the records of a value: itself, the items of a list, or those of a page of an API."""
    if isinstance(value, dict):
        items = next((value[key] for key in _LISTS if isinstance(value.get(key), list)), None)
        is_page = value.get("object") == "list" or "has_more" in value or "requests" in value
        yield from items if items is not None and is_page else [value]
    elif isinstance(value, list) and value and not isinstance(to_object(value[0]).get("role"), str):
        yield from value
    else:
        yield value


def custom_ids(records: Iterable[Any]) -> list[str]:
    """The ids of batch records."""
    ids = (find_id(record, ["custom_id"]) for record in records if isinstance(record, dict))
    return [custom_id for custom_id in ids if custom_id is not None]


def request_files(source: Source, ids: Iterable[str], *, is_request: Callable[[Any], bool]) -> list[Path]:
    """The files beside a result file that have requests with its ids."""
    expected = set(ids)
    folder = source.path.parent
    candidates = _files_with_requests(folder, folder.stat().st_mtime_ns, is_request)
    return [path for path in candidates if path != source.path and expected & _request_ids(path)]


@lru_cache(maxsize=16)
def _files_with_requests(folder: Path, _changed_at: int, is_request: Callable[[Any], bool]) -> list[Path]:
    """The files of a folder that begin with requests: a folder may have many files with results."""
    files = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in _SUFFIXES or not path.is_file():
            continue
        with contextlib.suppress(OSError, ValueError):
            first = Source(path, path.name).head[:1]
            if any(is_request(record) for value in first for record in iterate_records(value)):
                files.append(path)
    return files


def _request_ids(path: Path) -> set[str]:
    return set(custom_ids(_iterate_file(path)))


def read_requests(source: Source, *, is_request: Callable[[Any], bool]) -> dict[str, dict[str, Any]]:
    """The requests by id, from the files beside a file of results.

    Batches use the same ids again, such as "request-1": of several files with an id, the one with the most similar name
    has the request. Without one, an id with different requests has none.
    """
    ids = custom_ids(_iterate_file(source.path))
    requests: dict[str, tuple[float, dict[str, Any] | None]] = {}
    for path in request_files(source, ids, is_request=is_request):
        similarity = SequenceMatcher(None, path.name, source.path.name).ratio()
        for record in filter(is_request, _iterate_file(path)):
            body = to_object(record.get("params") or record.get("body"))
            for custom_id in custom_ids([record]):
                best, request = requests.get(custom_id, (-1.0, None))
                if similarity > best:
                    requests[custom_id] = similarity, body
                elif similarity == best and request != body:
                    requests[custom_id] = best, None
    return {custom_id: request for custom_id, (_, request) in requests.items() if request is not None}


def _iterate_file(path: Path) -> Iterator[Any]:
    for item in Source(path, path.name).values():
        if isinstance(item, Value):
            yield from iterate_records(item.value)
