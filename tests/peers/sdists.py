"""The source distributions of other frameworks, which have their tests, and what these tests need besides.

All of it is in ``.venv/peers``: nothing is copied into the repository.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".venv" / "peers"
LIBRARIES = FOLDER / "lib"
# Without what they need themselves, which is installed: a second pytest would shadow the first.
_PLUGINS = ("pytest-asyncio>=1.3", "pytest-mock>=3.15", "inline-snapshot>=0.30", "asttokens>=3", "executing>=2.2")


class NotDownloaded(Exception):
    """Something cannot be downloaded from the package index."""


def install_plugins() -> None:
    """Install the plugins of pytest that the tests need, once, where only the tests have them."""
    mark = LIBRARIES / ".ready"
    if not mark.exists() or mark.read_text() != "\n".join(_PLUGINS):
        _pip("install", "--no-deps", "--upgrade", "--target", str(LIBRARIES), *_PLUGINS)
        mark.write_text("\n".join(_PLUGINS))


def unpack(name: str) -> Path:
    """The folder of the source distribution of a package in the version that is installed; downloaded once.

    Raises:
        NotDownloaded: The index has none, or cannot be reached.
    """
    version = importlib.metadata.version(name)
    target = FOLDER / f"{name}-{version}"
    if not target.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
            _pip("download", "--no-deps", "--no-binary", name, "--dest", folder, f"{name}=={version}")
            (archive,) = Path(folder).glob("*.tar.gz")
            with tarfile.open(archive) as source:
                source.extractall(folder, filter="data")
            (root,) = (path for path in Path(folder).iterdir() if path.is_dir())
            root.rename(target)
    return target


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["no reason stated"]
        raise NotDownloaded(f"pip {arguments[0]} {arguments[-1]}: {lines[-1]}")
