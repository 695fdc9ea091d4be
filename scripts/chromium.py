#!/usr/bin/env python3
"""Print the path of a Chromium that starts; get one first if the machine has none.

Tried in this order: $KERN_CHROMIUM, the PATH, an earlier download by Playwright, apt-get (as root), a download by
Playwright. With --find nothing is installed. If all fail, one line on stderr says so, and nothing is printed: the
browser tests then skip. In CI (CI is set) that is an error instead, so that they cannot go missing unnoticed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Fonts, because a machine without a browser often has none, and the screenshots would show boxes.
PACKAGES = ("chromium", "fonts-dejavu-core", "fonts-liberation")


def starts(path: str) -> bool:
    """Tell whether it runs at all: some systems ship a `chromium` that only names the package to install."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def on_path() -> str | None:
    """Return the first browser on the PATH that starts."""
    return next((path for name in NAMES if (path := shutil.which(name)) and starts(path)), None)


def from_playwright() -> str | None:
    """Return the browser that Playwright has downloaded, if it has."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if starts(path) else None


def run(*command: str, **env: str) -> bool:
    """Run a command, its output on stderr, since stdout is for the path alone."""
    print("+", *command, file=sys.stderr, flush=True)
    return subprocess.run(command, stdout=sys.stderr, env={**os.environ, **env}, check=False).returncode == 0


def apt_get() -> bool:
    """Install Debian's package, where that is ours to do."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-qq", **quiet)  # may fail for one source of many: the install tells
    return run("apt-get", "install", "-qq", "-y", "--no-install-recommends", *PACKAGES, **quiet)


def main() -> int:
    """Print a path, or say why there is none."""
    if named := os.environ.get("KERN_CHROMIUM"):
        if not starts(named):
            print(f"KERN_CHROMIUM={named} does not start", file=sys.stderr)
            return 1
        print(named)
        return 0
    path = on_path() or from_playwright()
    if not path and "--find" not in sys.argv:
        path = apt_get() and on_path()
        path = path or (run(sys.executable, "-m", "playwright", "install", "chromium") and from_playwright())
    if path:
        print(path)
        return 0
    print("no Chromium: install one, or name it in KERN_CHROMIUM", file=sys.stderr)
    return 1 if os.environ.get("CI") else 0


if __name__ == "__main__":
    sys.exit(main())
