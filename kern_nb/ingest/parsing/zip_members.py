"""Members of a zip archive, also of one that was cut off while it was copied or written.

They may be compressed with Zstandard, which `zipfile` reads since Python 3.14 only.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from kern_nb.db.file_descriptors import open_binary, read_header

STORED, DEFLATED, ZSTANDARD = 0, 8, 93

_HEADER = struct.Struct("<4s5H3L2H")
_SIGNATURE = b"PK\x03\x04"
_SIZE_FOLLOWS = 0x08
_IS_ENCRYPTED = 0x01


class Member(NamedTuple):
    """One member.

    Attributes:
        name: Its path in the archive.
        method: How it is compressed.
        offset: Where its local header starts.
        size: Its compressed bytes.
    """

    name: str
    method: int
    offset: int
    size: int


def is_archive(path: Path) -> bool:
    """Whether a file starts as a zip archive does."""
    return read_header(path, len(_SIGNATURE)) == _SIGNATURE


def list_members(path: Path) -> list[Member]:
    """The members of an archive; of one without a directory at its end, those that are complete."""
    with open_binary(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                infos = [archive.getinfo(name) for name in dict.fromkeys(archive.namelist())]
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            return list({member.name: member for member in _scan(file)}.values())
    return [Member(info.filename, info.compress_type, info.header_offset, info.compress_size) for info in infos]


def read_member(path: Path, member: Member) -> bytes:
    """Decompress a member; raise ValueError if it is damaged."""
    with open_binary(path) as file:
        start = _read_header(file, member.offset)
        if start is None:
            raise ValueError("the header of the member is damaged")
        file.seek(start[1])
        data = file.read(member.size)
    if len(data) < member.size:
        raise ValueError("the file ends inside of the member")
    if member.method == STORED:
        return data
    if member.method == DEFLATED:
        try:
            return zlib.decompress(data, -zlib.MAX_WBITS)
        except zlib.error as error:
            raise ValueError(str(error)) from error
    if member.method == ZSTANDARD:
        return _decompress_zstandard(data)
    raise ValueError(f"the compression method {member.method} is unknown")


def _decompress_zstandard(data: bytes) -> bytes:
    try:
        with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as reader:
            return bytes(reader.read())
    except OSError as error:
        raise ValueError(str(error)) from error


def _scan(file: BinaryIO) -> Iterator[Member]:
    """Yield the members from the start of the file on, as long as each states its size."""
    offset, end = 0, file.seek(0, 2)
    while (header := _read_header(file, offset)) is not None:
        member, start, has_size = header
        if not has_size or start + member.size > end:
            return
        yield member
        offset = start + member.size


def _read_header(file: BinaryIO, offset: int) -> tuple[Member, int, bool] | None:
    """The member at an offset, where its data starts and whether its size is known; None if no member is there."""
    file.seek(offset)
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    signature, _, flags, method, *_, size, _, name_length, extra_length = _HEADER.unpack(header)
    if signature != _SIGNATURE or flags & _IS_ENCRYPTED:
        return None
    name = file.read(name_length).decode(errors="replace")
    start = offset + len(header) + name_length + extra_length
    return Member(name, method, offset, size), start, not flags & _SIZE_FOLLOWS
