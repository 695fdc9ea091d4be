"""Blobs are stored once by their hash and returned unchanged."""

from __future__ import annotations

import hashlib
import threading

import pytest
from samples import SPECIAL, a_session, all_rows, row_counts
from test_many_writers import at_once

from kern_nb.db import open_store
from kern_nb.errors import ReadOnlyStore

CONTENTS = [
    b"",
    b"\x00",
    b"\xff\xfe",
    bytes(range(256)) * 3,
    b"'; DROP TABLE agno_sessions_blobs; --",
    b"\\x00",
    b"plain",
]


def sha256(content: bytes) -> str:
    """Return the key of a blob."""
    return hashlib.sha256(content).hexdigest()


def test_blob_round_trip(store):
    """By SHA-256, with the media type, as bytes on every engine."""
    for i, content in enumerate(CONTENTS):
        name = store.put_blob(content, f"image/{i}")
        blob = store.get_blob(name)

        assert name == sha256(content)
        assert (blob.sha256, blob.media_type, blob.content) == (name, f"image/{i}", content)
        assert type(blob.content) is bytes
    assert row_counts(store)["agno_sessions_blobs"] == len(CONTENTS)


def test_identical_blob_is_stored_once(store):
    """The first media type is kept."""
    names = [store.put_blob(b"picture", media_type) for media_type in ("image/png", None, "image/jpeg", "image/png")]

    assert set(names) == {sha256(b"picture")}
    assert row_counts(store)["agno_sessions_blobs"] == 1
    assert store.get_blob(names[0]).media_type == "image/png"
    assert store.get_blob(store.put_blob(b"untold")).media_type is None


def test_large_blob_is_stored(store):
    """Sixteen megabytes that are not valid text."""
    content = bytes(range(256)) * 4096 * 16

    assert store.get_blob(store.put_blob(content, "video/mp4")).content == content


def test_media_type_may_be_any_text(store):
    """NUL and lone surrogates are stored, too."""
    for text in SPECIAL:
        assert store.get_blob(store.put_blob(repr(text).encode(), text)).media_type == text


def test_unknown_blob_is_none(store):
    """Also in a store without tables, and for invalid hashes."""
    for _ in range(2):
        for name in (
            sha256(b"x"),
            "",
            "\x00",
            "\ud800",
            "%",
            sha256(b"picture").upper(),
            sha256(b"picture")[:20],
            "x" * 10_000,
        ):
            assert store.get_blob(name) is None
        store.put_blob(b"picture")


def test_non_bytes_are_refused(store):
    """Text must be encoded first; nothing is stored."""
    a_session(store, runs=1)
    before = all_rows(store)
    for content in ("text", None, 5, ["x"]):
        with pytest.raises(TypeError):
            store.put_blob(content)

    assert all_rows(store) == before


def test_sessions_do_not_affect_unreferenced_blobs(store):
    """A blob may belong to several sessions."""
    name = store.put_blob(b"picture", "image/png")
    a_session(store, runs=1)
    store.delete_session("chat")

    assert store.get_blob(name).content == b"picture"
    assert store.check().problems == []


def test_workloads_have_separate_blobs(store_factory, engine_name):
    """A blob of one session_table is not visible in another."""
    first, second = store_factory(session_table="one"), store_factory(session_table="two")
    name = first.put_blob(b"picture")

    assert second.get_blob(name) is None
    assert first.get_blob(name).content == b"picture"


def test_blob_is_readable_in_read_only_store(persistent_target):
    """Writing it is refused, even if it exists."""
    with open_store(persistent_target) as store:
        name = store.put_blob(b"picture", "image/png")
    with open_store(persistent_target, read_only=True) as reader:
        assert reader.get_blob(name) == (name, "image/png", b"picture")
        for content in (b"picture", b"other"):
            with pytest.raises(ReadOnlyStore):
                reader.put_blob(content)
        assert row_counts(reader)["agno_sessions_blobs"] == 1


def test_threads_store_same_blob_concurrently(store, store_factory, engine_name):
    """It is stored once, and each thread gets its hash; other blobs are stored as well."""
    other = store if engine_name == "memory" else store_factory()
    names, lock = [], threading.Lock()

    def keep(who, n):
        for i in range(5):
            result = [who.put_blob(b"same %d" % i, "image/png"), who.put_blob(b"own %d %d" % (n, i))]
            with lock:
                names.extend(result)

    errors = at_once(*(lambda who=who, n=n: keep(who, n) for n, who in enumerate((store, other) * 3)))

    assert errors == []
    assert len(set(names)) == row_counts(store)["agno_sessions_blobs"] == 5 + 6 * 5
    assert all(sha256(store.get_blob(name).content) == name for name in set(names))


def test_processes_store_same_blobs_concurrently(persistent_target, workers):
    """Each is stored once."""
    four = workers(4)
    for worker in four:
        worker.begin("keep", target=persistent_target, count=10, start=0.0)
    assert {tuple(worker.end()) for worker in four} == {tuple(sha256(b"picture %d" % i) for i in range(10))}
    with open_store(persistent_target) as store:
        assert row_counts(store)["agno_sessions_blobs"] == 10
