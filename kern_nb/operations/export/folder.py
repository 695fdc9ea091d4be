"""Write several files that belong together: in a temporary folder, from which they are moved when all are complete."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from kern_nb import files
from kern_nb.errors import BadUsage
from kern_nb.operations.export.write import Counts, file_exists, move_new, part_path, write_error

_FOLDER_MODE = 0o700


def require_folder(path: Path) -> None:
    """Raise BadUsage if no folder may be created at the path, and none is there."""
    try:
        exists, is_folder, has_parent = path.exists(), path.is_dir(), path.parent.is_dir()
    except OSError as error:
        raise BadUsage(f"Invalid path {str(path)!r}: {error.strerror}.", "Choose another name.") from error
    if exists and not is_folder:
        raise BadUsage(f"{str(path)!r} is a file.", "Name a folder.")
    if not has_parent:
        hint = f"Create it first; relative paths start at {Path.cwd()}."
        raise BadUsage(f"The folder {str(path.parent)!r} does not exist.", hint)


def write_folder(folder: Path, write: Callable[[Path], Counts], *, overwrite: bool) -> tuple[Counts, int]:
    """Write files into a folder, which is created if it is missing; return what ``write`` counted, and their size.

    The other files of an existing folder stay. So do files with the names of new ones, unless ``overwrite``: then each
    is replaced as a whole. Files in subfolders are named by their content: one that is there is the same.

    Raises BadUsage if a file exists, KernError if the disk is full or the folder is not writable. After an error, no
    new file remains.
    """
    is_new = not folder.exists()
    part = part_path(folder if is_new else folder / "export")
    try:
        part.mkdir(_FOLDER_MODE)
        counts = write(part)
        names = sorted(path.relative_to(part) for path in part.rglob("*") if path.is_file())
        size = sum(_flush(part / name) for name in names)
        if is_new:
            part.rename(folder)
        else:
            _move_all(part, folder, names, overwrite=overwrite)
    except FileExistsError as error:
        raise file_exists(folder) from error
    except OSError as error:
        raise write_error(folder, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return counts, size


def _flush(path: Path) -> int:
    """Write a file to the disk; return its size."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return path.stat().st_size


def _move_all(part: Path, folder: Path, names: list[Path], *, overwrite: bool) -> None:
    media = [name for name in names if name.parent != Path()]
    documents = [name for name in names if name.parent == Path()]
    for name in documents:
        if not overwrite and (folder / name).exists():
            raise file_exists(folder / name)
    moved: list[Path] = []
    try:
        for name in (*media, *documents):
            target = folder / name
            target.parent.mkdir(_FOLDER_MODE, exist_ok=True)
            if name in documents and overwrite:
                files.copy_mode(target, part / name)
                (part / name).replace(target)
            elif not target.exists():
                move_new(part / name, target)
                moved.append(target)
            elif name in documents:
                raise file_exists(target)  # noqa: TRY301 - what was moved is removed below
    except BaseException:
        for target in moved:
            with contextlib.suppress(OSError):
                target.unlink()
        raise
