"""A file in another arrangement, encoding or archive has the same rows, and exactly one importer accepts it."""

from __future__ import annotations

import gzip
import json
import random
import zipfile

import pandas as pd
import pyarrow as pa
import pytest
from small_files import BINARY_FILES, binary_data, json_files

from kern_nb.db import SqliteDb
from kern_nb.ingest import registry
from kern_nb.ingest.archives import Workspace
from kern_nb.ingest.source import Source

FILES = json_files()
FRAMES = ("sessions_df", "runs_df", "messages_df", "tool_calls_df", "scores_df")
# The name of the file is that of the task.
NAMED_BY_FILE = ("swe_agent",)
# Ids of runs depend on those of sessions; these, for some formats, on the name of the file.
IDS = ("session_id", "run_id", "parent_run_id", "message_id", "score_id")


def reorder(value, rng):
    """The same value with the keys of objects in another order, except in what tools take and return."""
    if isinstance(value, list):
        return [reorder(item, rng) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: reorder(value[key], rng) for key in rng.sample(list(value), len(value))}


def zipped(name, data, folder):
    path = folder / "archive.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"inner/{name}", data)
    return path


def written(name, data, folder):
    path = folder / name
    path.write_bytes(data)
    return path


def compressed(data):
    return pa.compress(data, codec="zstd", asbytes=True)


def pretty(file, **options):
    separator = "\n"
    return separator.join(json.dumps(record, indent=2, **options) for record in file.records).encode()


def shuffled(file):
    rng = random.Random(file.name)
    records = [reorder(record, rng) for record in file.records]
    return file._replace(records=records).data


def one_line(file):
    return "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in file.records).encode()


VARIANTS = {
    "over several lines": lambda f, d: written(f.name, pretty(f), d),
    "one line": lambda f, d: written(f.name, one_line(f), d),
    "gzip": lambda f, d: written(f.name + ".gz", gzip.compress(f.data), d),
    "zstandard": lambda f, d: written(f.name + ".zst", compressed(f.data), d),
    "zip": lambda f, d: zipped(f.name, f.data, d),
    "zip of gzip": lambda f, d: zipped(f.name + ".gz", gzip.compress(f.data), d),
    "byte order mark": lambda f, d: written(f.name, b"\xef\xbb\xbf" + f.data, d),
    "UTF-16": lambda f, d: written(f.name, f.data.decode().encode("utf-16"), d),
    "UTF-16 without mark": lambda f, d: written(f.name, f.data.decode().encode("utf-16-be"), d),
    "CRLF": lambda f, d: written(f.name, f.data.replace(b"\n", b"\r\n"), d),
    "blank lines": lambda f, d: written(f.name, b"\n\n" + f.data.replace(b"}\n{", b"}\n\n \n{") + b"\n\n", d),
    "no line break at the end": lambda f, d: written(f.name, f.data.rstrip(), d),
    "other order of keys": lambda f, d: written(f.name, shuffled(f), d),
    "another name": lambda f, d: written("x.json", f.data, d),
}


def rows_of(path, folder):
    """The rows of a file in a new store, without what depends on its name."""
    target = folder / "s.db"
    target.unlink(missing_ok=True)
    with SqliteDb(target) as store:
        report = store.ingest(path, progress=False)
        assert report.errors == []
        assert report.sessions
        again = store.ingest(path, progress=False)
        assert (again.sessions, again.runs, again.messages) == (0, 0, 0)
        return [without_names(getattr(store, frame)()) for frame in FRAMES]


def without_names(frame):
    frame = frame.drop(columns=[name for name in IDS if name in frame])
    for column in ("metadata", "session_data", "extra"):
        if column in frame:
            frame[column] = [json.dumps(named(text), sort_keys=True) for text in frame[column]]
    return frame.map(canonical) if len(frame) else frame


def named(text):
    value = json.loads(text) if isinstance(text, str) else {}
    return {key: item for key, item in value.items() if key not in ("file", "line", "source", "experiment")}


def canonical(value):
    """JSON text with sorted keys."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.dumps(json.loads(value), sort_keys=True)
        except ValueError:
            return value
    return value


def accepting(path):
    with Workspace() as workspace:
        source = Source(path, path.name, workspace)
        return [name for name, kind in registry.load_importers().items() if kind.recognizes(source)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_variants_of_a_file_have_equal_rows(file, tmp_path):
    original = tmp_path / "original"
    original.mkdir()
    expected = rows_of(written(file.name, file.data, original), tmp_path)
    for label, write in VARIANTS.items():
        if label == "another name" and file.importer in NAMED_BY_FILE:
            continue
        folder = tmp_path / label
        folder.mkdir()
        path = write(file, folder)
        if path.suffix != ".zip":
            assert accepting(path) == [file.importer], label
        for name, rows, other in zip(FRAMES, expected, rows_of(path, tmp_path), strict=True):
            pd.testing.assert_frame_equal(rows, other, obj=f"{label}: {name}")


@pytest.mark.parametrize("importer", BINARY_FILES)
def test_compressed_databases_have_equal_rows(importer, tmp_path):
    name, data = binary_data(importer, tmp_path)
    expected = rows_of(tmp_path / name, tmp_path)
    variants = {
        "gz": written(name + ".gz", gzip.compress(data), tmp_path),
        "zst": written(name + ".zst", compressed(data), tmp_path),
        "zip": zipped(name, data, tmp_path),
    }
    assert accepting(tmp_path / name) == [importer]
    for label, path in variants.items():
        for frame, rows, other in zip(FRAMES, expected, rows_of(path, tmp_path), strict=True):
            pd.testing.assert_frame_equal(rows, other, obj=f"{label}: {frame}")


def test_each_sample_is_accepted_by_one_importer(shared_data):
    """At most one: files beside the recordings, such as a list of figures, by none."""
    for path in shared_data.rglob("*"):
        if path.is_file():
            names = accepting(path)
            assert len(names) <= 1, (path.name, names)
