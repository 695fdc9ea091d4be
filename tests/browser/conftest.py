"""Fixtures over harness.py. Run these tests in a call of their own: `make browser`, or `pytest tests/browser`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from harness import Lab, OpenNotebook, close, find_chromium, new_page_context, open_in, running_chromium, running_lab

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for all tests; without one they are skipped, except in CI."""
    path = os.environ.get("KERN_CHROMIUM") or find_chromium()
    if not path:
        pytest.skip("no Chromium: `python scripts/chromium.py` gets one")
    with running_chromium(path) as browser:
        yield browser


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab for all tests."""
    with running_lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture
def open_notebook(chromium: Browser, lab: Lab) -> Iterator[Callable[[Path], OpenNotebook]]:
    """Open a copy of a notebook on a page of its own: `open_notebook(path)`."""
    context = new_page_context(chromium)
    yield lambda path: open_in(lab, context, path)
    close(context)
