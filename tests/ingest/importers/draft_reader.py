"""Reading small files with an importer, for the tests of importers, and the figures that the samples must have."""

from __future__ import annotations

import json

import pytest


def write(folder, name, content):
    """Write a file: bytes as they are, a list of records as JSON lines, any other value as a JSON document."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, tuple):
        content = "".join(json.dumps(record) + "\n" for record in content).encode()
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content, indent=1).encode())
    return path


def recognized_by(path):
    """The name of the importer that reads a file; None if none does."""
    from kern_nb.errors import UnknownFormat
    from kern_nb.ingest.registry import detect_importer
    from kern_nb.ingest.source import Source

    try:
        return detect_importer(Source(path, path.name)).name
    except UnknownFormat:
        return None


def read(importer, path, name=None):
    """The drafts and the problems of a file."""
    from kern_nb.ingest.importer import Draft
    from kern_nb.ingest.source import Source

    source = Source(path, name or path.name)
    importer.recognizes(source)
    items = list(importer.read(source))
    for item in items:
        if isinstance(item, Draft):
            item.line()
    return [i for i in items if isinstance(i, Draft)], [i for i in items if not isinstance(i, Draft)]


def messages(draft):
    return [message for run in draft.runs for message in run.messages]


def roles(draft):
    return [[message.role for message in run.messages] for run in draft.runs]


def inputs(draft):
    return [run.input for run in draft.runs]


def expected(shared_data, file):
    """The figures of a sample; skips the test without them."""
    path = shared_data / "EXPECTED_FORMATS.json"
    if not path.is_file():
        pytest.skip(f"{path.name} is not there")
    figures = json.loads(path.read_text())
    return figures.get("files", figures)[file]


def import_twice(folder, path):
    """Import a file or folder twice into a new store, which stores nothing the second time; returns the store."""
    from kern_nb.db import SqliteDb

    store = SqliteDb(folder / "twice.db")
    first = store.ingest(path, progress=False)
    assert first.errors == []
    before = [store.sessions_df(), store.runs_df(), store.messages_df(), store.tool_calls_df()]
    again = store.ingest(path, progress=False)
    assert (again.errors, again.sessions, again.runs, again.messages) == ([], 0, 0, 0)
    after = [store.sessions_df(), store.runs_df(), store.messages_df(), store.tool_calls_df()]
    assert [frame.to_csv() for frame in before] == [frame.to_csv() for frame in after]
    return store
