"""A real IPython for tests: no history, no stores of another test, an empty folder to work in.

A ``conftest.py`` imports these fixtures.
"""

from __future__ import annotations

import atexit
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


@dataclass
class Notebook:
    """Cells, run as a kernel runs them."""

    shell: InteractiveShell
    capsys: pytest.CaptureFixture[str]

    def run(self, cell: str) -> Any:
        """Run a cell; its value, or its error raised."""
        result = self.shell.run_cell(cell, store_history=False)
        result.raise_error()
        return result.result

    def fails(self, cell: str) -> tuple[BaseException, list[str]]:
        """Run a cell that must fail; its error, and the lines that a reader sees of it."""
        self.capsys.readouterr()
        result = self.shell.run_cell(cell, store_history=False)
        assert result.error_in_exec is not None, f"no error in {cell!r}"
        seen = self.capsys.readouterr()
        assert seen.err == ""
        return result.error_in_exec, seen.out.splitlines()

    def printed(self, cell: str) -> str:
        """Run a cell; what it prints."""
        self.capsys.readouterr()
        self.run(cell)
        return self.capsys.readouterr().out


@pytest.fixture
def attached_stores(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No store is attached before the test, and none after it."""
    from kern_nb import store_registry

    monkeypatch.setattr(store_registry, "_stores", {})
    monkeypatch.setattr(store_registry, "_in_use", None)
    yield
    for name in store_registry.names():
        store_registry.detach(name)


@pytest.fixture
def plain_notebook(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    attached_stores: None,
) -> Iterator[Notebook]:
    """A notebook in an empty folder, without the extension."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    InteractiveShell.clear_instance()
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    shell = InteractiveShell.instance(config=config)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield Notebook(shell, capsys)
    shell.restore_sys_module_state()
    InteractiveShell.clear_instance()
    # Each shell would collect garbage once more when Python ends: seconds, for hundreds of shells minutes.
    atexit.unregister(shell.atexit_operations)


@pytest.fixture
def notebook(plain_notebook: Notebook) -> Notebook:
    """A notebook with the extension loaded."""
    plain_notebook.run("%load_ext kern_nb")
    return plain_notebook
