"""Bytes are kept once by what they are, and come back as they went in."""

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
    """The name of bytes."""
    return hashlib.sha256(content).hexdigest()


def test_bytes_come_back_as_they_went_in(store):
    """All of them, by their SHA-256, with their media type, and as bytes on every engine."""
    for i, content in enumerate(CONTENTS):
        name = store.put_blob(content, f"image/{i}")
        blob = store.get_blob(name)

        assert name == sha256(content)
        assert (blob.sha256, blob.media_type, blob.content) == (name, f"image/{i}", content)
        assert type(blob.content) is bytes
    assert row_counts(store)["agno_sessions_blobs"] == len(CONTENTS)


def test_a_picture_is_kept_once(store):
    """However often it is sent; its first media type stays."""
    names = [store.put_blob(b"picture", media_type) for media_type in ("image/png", None, "image/jpeg", "image/png")]

    assert set(names) == {sha256(b"picture")}
    assert row_counts(store)["agno_sessions_blobs"] == 1
    assert store.get_blob(names[0]).media_type == "image/png"
    assert store.get_blob(store.put_blob(b"untold")).media_type is None


def test_large_bytes_are_kept(store):
    """Sixteen megabytes, that no engine takes for text."""
    content = bytes(range(256)) * 4096 * 16

    assert store.get_blob(store.put_blob(content, "video/mp4")).content == content


def test_a_media_type_is_any_text(store):
    """NUL and lone surrogates are kept like elsewhere."""
    for text in SPECIAL:
        assert store.get_blob(store.put_blob(repr(text).encode(), text)).media_type == text


def test_what_is_not_kept_is_none(store):
    """Also in a store without tables, and by names that are none."""
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


def test_what_is_no_bytes_is_refused(store):
    """Text has no bytes of its own; nothing is kept."""
    a_session(store, runs=1)
    before = all_rows(store)
    for content in ("text", None, 5, ["x"]):
        with pytest.raises(TypeError):
            store.put_blob(content)

    assert all_rows(store) == before


def test_sessions_come_and_go_without_the_bytes(store):
    """A picture may be another session's too."""
    name = store.put_blob(b"picture", "image/png")
    a_session(store, runs=1)
    store.delete_session("chat")

    assert store.get_blob(name).content == b"picture"
    assert store.check().problems == []


def test_workloads_keep_their_own_bytes(store_factory, engine_name):
    """What one session_table keeps is not the other's."""
    one, two = store_factory(session_table="one"), store_factory(session_table="two")
    name = one.put_blob(b"picture")

    assert two.get_blob(name) is None
    assert one.get_blob(name).content == b"picture"


def test_bytes_can_be_read_where_nothing_can_be_written(persistent_target):
    """And putting them there again is refused, though they are there."""
    with open_store(persistent_target) as store:
        name = store.put_blob(b"picture", "image/png")
    with open_store(persistent_target, read_only=True) as reader:
        assert reader.get_blob(name) == (name, "image/png", b"picture")
        for content in (b"picture", b"other"):
            with pytest.raises(ReadOnlyStore):
                reader.put_blob(content)
        assert row_counts(reader)["agno_sessions_blobs"] == 1


def test_threads_keep_the_same_picture_at_once(store, store_factory, engine_name):
    """Once, and each is told its name; other pictures beside it are kept too."""
    other = store if engine_name == "memory" else store_factory()
    names, lock = [], threading.Lock()

    def keep(who, n):
        for i in range(5):
            found = [who.put_blob(b"same %d" % i, "image/png"), who.put_blob(b"own %d %d" % (n, i))]
            with lock:
                names.extend(found)

    errors = at_once(*(lambda who=who, n=n: keep(who, n) for n, who in enumerate((store, other) * 3)))

    assert errors == []
    assert len(set(names)) == row_counts(store)["agno_sessions_blobs"] == 5 + 6 * 5
    assert all(sha256(store.get_blob(name).content) == name for name in set(names))


def test_processes_keep_the_same_pictures_at_once(persistent_target, workers):
    """Each once."""
    four = workers(4)
    for worker in four:
        worker.begin("keep", target=persistent_target, count=10, start=0.0)
    assert {tuple(worker.end()) for worker in four} == {tuple(sha256(b"picture %d" % i) for i in range(10))}
    with open_store(persistent_target) as store:
        assert row_counts(store)["agno_sessions_blobs"] == 10
