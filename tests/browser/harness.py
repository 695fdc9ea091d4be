"""A real JupyterLab in a real Chromium, as plain context managers: for the fixtures here and for screenshots.py."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from playwright.sync_api import expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, BrowserContext, Page, Request

REPO = Path(__file__).resolve().parents[2]
NOTEBOOKS = REPO / "notebooks"
KERNELSPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}
SECONDS = 1000  # Playwright counts in milliseconds

expect.set_options(timeout=30 * SECONDS)  # the default of 5 s loses against a kernel that is busy importing

FLAGS = (
    "--no-sandbox",  # Chromium refuses to run as root otherwise
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers have little of it
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # a request to anywhere else fails, here as offline
)
SETTINGS: dict[str, dict[str, Any]] = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},  # no pop-ups
    "completer-extension/manager": {"autoCompletion": False},  # only Tab completes
    "docmanager-extension/plugin": {"autosave": False},
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is in the page, also off screen
}
# Nothing of the user's own Jupyter is read or written.
HOMES = ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")

IDLE = """path => {
  const widget = window.jupyterapp?.shell?.currentWidget;
  const session = widget?.context?.sessionContext;
  return widget?.context?.path === path && session.isReady && session.session?.kernel?.status === "idle";
}"""
RUN_ALL = """limit => Promise.race([
  window.jupyterapp.commands.execute("notebook:run-all-cells"),
  new Promise((_, fail) => setTimeout(() => fail(new Error(`cells still running after ${limit} ms`)), limit)),
])"""
CELLS = "() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells"
SHUT_DOWN = "() => window.jupyterapp.shell.currentWidget.context.sessionContext.shutdown()"


def find_chromium() -> str | None:
    """Return the browser that scripts/chromium.py finds, without installing one."""
    script = [sys.executable, REPO / "scripts" / "chromium.py", "--find"]
    return subprocess.run(script, stdout=subprocess.PIPE, text=True, check=True).stdout.strip() or None


@contextlib.contextmanager
def running_chromium(path: str) -> Iterator[Browser]:
    """Start Chromium without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


@dataclass(frozen=True)
class Lab:
    """A JupyterLab that is up: where it serves from, and how to reach it."""

    folder: Path
    url: str
    token: str


@contextlib.contextmanager
def running_lab(root: Path) -> Iterator[Lab]:
    """Start JupyterLab with everything it reads and writes below `root`."""
    folder, settings, token = root / "notebooks", root / "settings", secrets.token_hex(16)
    for path in (folder, *(root / name for name in HOMES)):
        path.mkdir(parents=True)
    for name, values in SETTINGS.items():
        file = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": 0,  # the server takes a free one and writes down which
        "ServerApp.allow_root": True,
        "ServerApp.open_browser": False,
        "ServerApp.root_dir": folder,
        "ServerApp.terminals_enabled": False,
        "IdentityProvider.token": token,
        "LabApp.expose_app_in_browser": True,
        "LabApp.extension_manager": "readonly",
        "LabApp.user_settings_dir": settings,
        "LabApp.workspaces_dir": root / "workspaces",
        "LabApp.news_url": None,
        "LabApp.check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate",
    }
    log = root / "lab.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *(f"--{name}={value}" for name, value in options.items())],
            cwd=root,
            env={**os.environ, **{name: str(root / name) for name in HOMES}},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for pytest, which then stops the server in order
        )
    try:
        yield Lab(folder, _wait_for(process, root, token, log), token)
    finally:
        process.terminate()  # the server takes its kernels with it
        process.wait(15)


def _wait_for(process: subprocess.Popen[bytes], root: Path, token: str, log: Path) -> str:
    info = root / "JUPYTER_RUNTIME_DIR" / f"jpserver-{process.pid}.json"
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        try:
            url = f"http://127.0.0.1:{json.loads(info.read_text())['port']}"
            with urllib.request.urlopen(f"{url}/api/status?token={token}", timeout=2):
                return url
        except (OSError, ValueError):
            time.sleep(0.1)
    message = f"JupyterLab did not start:\n{log.read_text()[-4000:]}"
    raise RuntimeError(message)


@dataclass
class OpenNotebook:
    """A notebook on a page of its own, with an idle kernel."""

    page: Page
    foreign: list[str] = field(default_factory=list)
    """Every request that went elsewhere than to the server."""

    def run_all(self, timeout: float = 180) -> None:
        """Run all cells and wait until they have run; an error in one stops those after it."""
        self.page.evaluate(RUN_ALL, timeout * SECONDS)

    def cells(self) -> list[dict[str, Any]]:
        """Return the cells as they would be saved now."""
        return self.page.evaluate(CELLS)

    def problems(self) -> list[str]:
        """Tell what went wrong: errors, text on stderr, and cells that did not run.

        A cell tagged `raises-exception` is meant to end in an error.
        """
        found = []
        for index, cell in enumerate(self.cells()):
            if cell["cell_type"] != "code" or not "".join(cell["source"]).strip():
                continue
            meant = "raises-exception" in cell["metadata"].get("tags", ())
            if cell["execution_count"] is None:
                found.append(f"cell {index} did not run")
            for output in cell["outputs"]:
                if output["output_type"] == "error" and not meant:
                    found.append(f"cell {index}: {output['ename']}: {output['evalue']}")
                elif output.get("name") == "stderr":
                    found.append(f"cell {index} on stderr: {''.join(output['text'])}")
        return found

    def use_theme(self, theme: Literal["light", "dark"]) -> None:
        """Switch JupyterLab's theme and wait until it shows."""
        self.page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })",
            f"JupyterLab {theme.capitalize()}",
        )
        expect(self.page.locator("body")).to_have_attribute("data-jp-theme-light", str(theme == "light").lower())
        expect(self.page.locator("#jupyterlab-splash")).to_have_count(0)  # which covers everything meanwhile


def new_page_context(browser: Browser, **options: Any) -> BrowserContext:
    """Make a context as tall as some screens, so that most of a notebook is in view."""
    return browser.new_context(**{"viewport": {"width": 1400, "height": 1600}, **options})


def open_in(lab: Lab, context: BrowserContext, source: Path) -> OpenNotebook:
    """Open a copy of a notebook, in a new folder together with copies of all that is in notebooks/."""
    folder = lab.folder / secrets.token_hex(4)
    folder.mkdir()
    if NOTEBOOKS.is_dir():
        shutil.copytree(NOTEBOOKS, folder, ignore=shutil.ignore_patterns(".*", "__pycache__"), dirs_exist_ok=True)
    shutil.copy(source, folder)
    notebook = OpenNotebook(context.new_page())
    ours = (lab.url, lab.url.replace("http", "ws", 1), "data:", "blob:")

    def note(request: Request) -> None:
        if not request.url.startswith(ours):
            notebook.foreign.append(request.url)

    notebook.page.on("request", note)
    path = f"{folder.name}/{source.name}"
    notebook.page.goto(f"{lab.url}/lab/tree/{path}?token={lab.token}&reset", wait_until="domcontentloaded")
    notebook.page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60 * SECONDS)
    notebook.page.wait_for_function(IDLE, arg=path, timeout=60 * SECONDS)
    return notebook


def close(context: BrowserContext) -> None:
    """Close all pages, and the kernels behind them."""
    for page in context.pages:
        page.evaluate(SHUT_DOWN)
    context.close()


def write_notebook(path: Path, *sources: str) -> Path:
    """Write a notebook with one code cell per source; it names its kernel, since Jupyter asks otherwise."""
    blank = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    cells = [{**blank, "id": f"c{index}", "source": source} for index, source in enumerate(sources)]
    content = {"cells": cells, "metadata": {"kernelspec": KERNELSPEC}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content))
    return path
