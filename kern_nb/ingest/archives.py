"""Compressed files, archives and UTF-16: their content as plain files in a temporary folder, of limited size.

Everything is read from plain files, so that an importer may read a file twice, seek in it, or open a database in it.
"""

from __future__ import annotations

import codecs
import gzip
import json
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, Self

import pyarrow as pa

from kern_nb.db.file_descriptors import open_binary, read_header

MAX_EXTRACTED = 16_000_000_000
"""Bytes that one import extracts. Archives can be made that hold far more than any disk."""

MAX_MEMBERS = 200_000
"""Files of one archive."""

COMPRESSED = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
"""The suffix of a compressed file, and its first bytes."""

_ZIP = b"PK\x03\x04"
_BUFFER = 1_000_000
# Left free on the disk, which other programs use, too.
_FREE = 500_000_000

DAMAGE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError)
"""What reading a damaged, encrypted or unsupported archive raises."""


class TooLarge(Exception):
    """The content is larger than what may be extracted."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Workspace:
    """A temporary folder for what an import extracts, of limited size."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._count = 0
        self.extracted = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def new_folder(self) -> Path:
        """Make an empty folder."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="kern_nb-import-", ignore_cleanup_errors=True)
        self._count += 1
        folder = Path(self._folder.name) / str(self._count)
        folder.mkdir()
        return folder

    def copy(self, source: _Readable, target: Path) -> None:
        """Write a stream to a file; raise TooLarge, and leave nothing, if it exceeds the limit."""
        limit = max(0, min(MAX_EXTRACTED - self.extracted, shutil.disk_usage(target.parent).free - _FREE))
        size = 0
        try:
            with target.open("xb") as file:
                while size <= limit and (data := source.read(_BUFFER)):
                    size += file.write(data)
        finally:
            self.extracted += size
        if size > limit:
            target.unlink()
            self.extracted -= size
            raise TooLarge(f"Its content is larger than the {limit / 1e9:.1f} GB that may be extracted.")

    def remove(self, folder: Path) -> None:
        """Remove a folder of this workspace."""
        self.extracted -= sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        shutil.rmtree(folder, ignore_errors=True)


def plain_name(name: str) -> str:
    """The name of a file without the suffix of its compression."""
    path = PurePosixPath(name)
    return name[: -len(path.suffix)] if path.suffix.lower() in COMPRESSED else name


def needs_extraction(path: Path) -> bool:
    """Whether a file is compressed, or text that is not UTF-8."""
    header = read_header(path, 4)
    return _compression(header) is not None or _encoding(header) is not None


def is_zip(path: Path) -> bool:
    """Whether a file is an archive of files, to be read as a folder. Formats that are archives have other suffixes."""
    return path.suffix.lower() == ".zip" and is_zip_header(read_header(path, 4))


def is_zip_header(header: bytes) -> bool:
    """Whether a file is a zip archive, from its first bytes."""
    return header.startswith(_ZIP)


def extract_file(path: Path, workspace: Workspace) -> tuple[Path, str]:
    """Write the content of a compressed or UTF-16 file to a plain file; return that file, and what is damaged.

    Raises:
        TooLarge: the content exceeds the limit.
        KernError: the package that decompresses it is not installed.
        OSError, EOFError, zlib.error: the file is damaged before its content begins.
    """
    target = workspace.new_folder() / plain_name(path.name)
    damage = ""
    with open_binary(path) as file:
        try:
            workspace.copy(open_content(file), target)
        except (OSError, EOFError, zlib.error) as error:  # the program that writes it may still run
            if not target.exists() or not target.stat().st_size:
                raise
            damage = str(error).rstrip(".")
    if encoding := _encoding(read_header(target, 4)):
        return _transcode(target, encoding, workspace), damage
    return target, damage


def extract_zip(path: Path, workspace: Workspace, omit: Collection[str] = ()) -> tuple[Path, dict[str, str]]:
    """Write the members of an archive to a folder, except those with suffixes to omit.

    Members are written below the folder only, whatever their names, and as files only: links become files.

    Returns:
        The folder, and why members are not in it, by name; the reason of an omitted one is empty.
    """
    folder = workspace.new_folder()
    missing: dict[str, str] = {}
    with open_binary(path) as file, zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) > MAX_MEMBERS:
            raise TooLarge(f"It has {len(members):,} members, more than {MAX_MEMBERS:,}.")
        for member in members:
            parts = PurePosixPath(member.filename.replace("\\", "/")).parts
            if parts and PurePosixPath(parts[-1]).suffix.lower() in omit:
                missing[member.filename] = ""
            elif not parts or any(part in ("..", "/") or ":" in part or "\0" in part for part in parts):
                missing[member.filename] = "its name leads out of the archive"
            else:
                target = folder.joinpath(*parts)
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as content:
                        workspace.copy(content, target)
                except DAMAGE as error:
                    missing[member.filename] = f"it is damaged: {error}"
    return folder, missing


def _compression(header: bytes) -> str | None:
    return next((suffix for suffix, magic in COMPRESSED.items() if header.startswith(magic)), None)


def open_content(file: BinaryIO) -> _Readable:
    """The content of a file, which may be compressed."""
    compression = _compression(file.read(4))
    file.seek(0)
    if compression == ".gz":
        return gzip.open(file)
    return pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") if compression == ".zst" else file


def _encoding(header: bytes) -> str | None:
    """The encoding of a JSON text, if it is not UTF-8: by its byte order mark, or the zeros beside ASCII characters."""
    is_marked = header.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    characters = header[::2] if header[1::2] == b"\0\0" else header[1::2] if header[::2] == b"\0\0" else b""
    if is_marked or (characters.isascii() and characters.decode().strip("\n\r\t").isprintable() and characters):
        return json.detect_encoding(header)
    return None


def _transcode(path: Path, encoding: str, workspace: Workspace) -> Path:
    target = workspace.new_folder() / path.name
    with path.open("rb") as file:
        workspace.copy(codecs.EncodedFile(file, "utf-8", encoding, "replace"), target)
    workspace.remove(path.parent)
    return target
