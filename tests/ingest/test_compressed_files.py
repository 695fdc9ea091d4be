"""Compressed files, archives, other encodings and Parquet are read as the plain files that they contain."""

from __future__ import annotations

import gzip
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kern_nb.errors import UnknownFormat
from kern_nb.ingest import archives
from kern_nb.ingest.source import Source

TALK = [{"role": "user", "content": "Where is my order?"}, {"role": "assistant", "content": "On its way, señora 🚚."}]
TEXT = "".join(json.dumps({"messages": TALK, "n": n}, ensure_ascii=False) + "\n" for n in range(3))


def ids(store):
    return sorted(store.sessions_df()["session_id"])


def compress(data, suffix):
    if suffix == ".gz":
        return gzip.compress(data)
    return pa.Codec("zstd").compress(data, asbytes=True)


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".GZ", ".ZST"])
def test_a_compressed_file_is_read_like_its_content(db, tmp_path, suffix):
    """Its sessions are those of the plain file, so that a log that was compressed later is not imported twice."""
    (tmp_path / "log.jsonl").write_text(TEXT)
    assert db.ingest(tmp_path / "log.jsonl").sessions == 3
    (tmp_path / f"log.jsonl{suffix}").write_bytes(compress(TEXT.encode(), suffix.lower()))
    report = db.ingest(tmp_path / f"log.jsonl{suffix}")

    assert (report.sessions, report.skipped, report.errors) == (0, 3, [])
    assert db.ingest(tmp_path).skipped == 6


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_truncated_compressed_file(db, tmp_path, suffix):
    """What can be decompressed is read; an empty remainder is refused in words."""
    lines = "".join(json.dumps({"messages": TALK, "n": n, "x": str(n) * 50}) + "\n" for n in range(20_000))
    data = compress(lines.encode(), suffix)
    path = tmp_path / f"log.jsonl{suffix}"
    path.write_bytes(data[: len(data) // 2])
    report = db.ingest(path)
    assert report.sessions > 100
    reason = report.errors[-1].reason.lower()
    assert "truncated" in reason or "ended before" in reason

    path.write_bytes(data[:5])
    with pytest.raises((UnknownFormat, OSError)):
        db.ingest(path)
    assert list(db.ingest(tmp_path).passed_over) == ["unreadable"]


def test_an_archive_is_read_like_a_folder(db, tmp_path):
    """Each member is a file below the archive; images are counted, and nothing is written beside it."""
    with zipfile.ZipFile(tmp_path / "export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("run1/talk.jsonl", TEXT)
        archive.writestr("run2/talk.jsonl", TEXT)
        archive.writestr("run2/photo.png", b"\x89PNG")
        archive.writestr("log.jsonl.gz", gzip.compress(TEXT.encode()))
        archive.writestr("__MACOSX/run1/talk.jsonl", TEXT)
    report = db.ingest(tmp_path / "export.zip")

    assert ids(db) == [f"export.zip/{name}-{n}" for name in ("log", "run1/talk", "run2/talk") for n in (1, 2, 3)]
    assert {kind: [p.file for p in problems] for kind, problems in report.passed_over.items()} == {
        "image": ["export.zip/run2/photo.png"],
        "hidden": ["export.zip/__MACOSX"],
    }
    assert [path.name for path in tmp_path.iterdir()] == ["export.zip"]
    assert db.ingest(tmp_path).skipped == 9


def test_an_archive_in_an_archive(db, tmp_path):
    """It is opened, too; the next one in that is passed over."""
    (tmp_path / "good.jsonl").write_text(TEXT)
    path = tmp_path / "0.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("talk.jsonl", TEXT)
    for n in (1, 2):
        outer = tmp_path / f"{n}.zip"
        with zipfile.ZipFile(outer, "w") as archive:
            archive.write(path, path.name)
        path.unlink()
        path = outer
        assert db.ingest(tmp_path).errors == []
    report = db.ingest(tmp_path)

    assert "archive in an archive" in report.passed_over["other"][0].reason


@pytest.mark.parametrize(
    "name", ["../out.jsonl", "/tmp/out.jsonl", "a/../../out.jsonl", "..\\out.jsonl", "C:\\out.jsonl"]
)
def test_members_stay_in_the_folder(db, tmp_path, name):
    """A member whose name leads elsewhere is reported, not written."""
    folder = tmp_path / "inner"
    folder.mkdir()
    with zipfile.ZipFile(folder / "evil.zip", "w") as archive:
        archive.writestr("good.jsonl", TEXT)
        archive.writestr(name, TEXT)
    report = db.ingest(folder)

    assert report.sessions == 3
    assert "leads out of the archive" in report.passed_over["unreadable"][0].reason
    assert not list(tmp_path.glob("*.jsonl"))


def test_a_link_in_an_archive_is_not_followed(db, tmp_path):
    secret = tmp_path / "secret.jsonl"
    secret.write_text(TEXT)
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as archive:
        link = zipfile.ZipInfo("link.jsonl")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(secret))
        archive.writestr("good.jsonl", TEXT)

    assert db.ingest(tmp_path / "links.zip").sessions == 3


@pytest.mark.parametrize("kind", [".gz", ".zst", ".zip"])
def test_a_bomb_is_passed_over(db, tmp_path, monkeypatch, kind):
    """What would fill the disk is not extracted; other files are imported."""
    monkeypatch.setattr(archives, "MAX_EXTRACTED", 5_000_000)
    data = b"0" * 20_000_000
    if kind == ".zip":
        with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("bomb.jsonl", data)
    else:
        (tmp_path / f"bomb.jsonl{kind}").write_bytes(compress(data, kind))
    (tmp_path / "good.jsonl").write_text(TEXT)
    report = db.ingest(tmp_path)

    assert report.sessions == 3
    assert len(report.passed_over["too large"]) == 1


def test_a_damaged_archive(db, tmp_path):
    """It is passed over in a folder, and refused by name."""
    (tmp_path / "good.jsonl").write_text(TEXT)
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04" + bytes(100))
    (tmp_path / "text.zip").write_text("no archive")
    report = db.ingest(tmp_path)

    assert report.sessions == 3
    assert [problem.file for problem in report.passed_over["unreadable"]] == ["bad.zip", "text.zip"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings(db, tmp_path, encoding):
    """PowerShell writes UTF-16."""
    (tmp_path / "talk.jsonl").write_bytes(TEXT.replace("\n", "\r\n").encode(encoding))
    report = db.ingest(tmp_path / "talk.jsonl")

    assert (report.sessions, report.errors) == (3, [])
    assert set(db.messages_df()["content"]) == {TALK[0]["content"], TALK[1]["content"]}


def test_a_file_that_is_no_text_is_refused(db, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1")
    with pytest.raises(UnknownFormat, match="it is not text"):
        db.ingest(path)


def test_parquet_rows_are_values(db, tmp_path):
    """A column has one type: the fields that an object lacks are not values."""
    call = {"id": "c", "function": {"name": "look", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "seen", "tool_call_id": "c"},
    ]
    table = pa.Table.from_pylist([{"id": str(n), "messages": messages} for n in range(250)])
    pq.write_table(table, tmp_path / "talk.PARQUET")
    source = Source(tmp_path / "talk.PARQUET", "talk.PARQUET")
    first = next(iter(source.values()))

    assert first.value["messages"][0] == {"role": "user", "content": "hi"}
    assert first.value["messages"][2] == messages[2]
    report = db.ingest(tmp_path)
    assert (report.sessions, report.tool_calls, report.errors) == (250, 250, [])
    assert db.ingest(tmp_path).skipped == 250


def test_a_damaged_parquet_file(db, tmp_path):
    pq.write_table(pa.Table.from_pylist([{"messages": TALK}]), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[: len(data) // 2])

    assert db.ingest(tmp_path).passed_over["unknown layout"]
