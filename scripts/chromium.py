#!/usr/bin/env python3
"""Print the path of a working Chromium, and install one if the machine has none.

The order is: $KERN_CHROMIUM, the PATH, an earlier download by Playwright, apt-get (as root), a download by
Playwright. With --find nothing is installed. If all fail, a line on stderr says so, nothing is printed, and the
browser tests are skipped. In CI (CI is set) that is an error instead, so that they cannot be skipped unnoticed.
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
    """Whether it starts: on some systems `chromium` is a stub that only names the package to install."""
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def on_path() -> str | None:
    """Return the first browser on the PATH that starts."""
    return next((path for name in NAMES if (path := shutil.which(name)) and starts(path)), None)


def from_playwright() -> str | None:
    """Return the browser that Playwright has downloaded, if any."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if starts(path) else None


def run(*command: str, **env: str) -> bool:
    """Run a command with its output on stderr, because stdout is for the path."""
    print("+", *command, file=sys.stderr, flush=True)
    return subprocess.run(command, stdout=sys.stderr, env={**os.environ, **env}, check=False).returncode == 0


def apt_get() -> bool:
    """Install Debian's package, if possible."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-qq", **quiet)  # may fail for one of several sources; the installation decides
    return run("apt-get", "install", "-qq", "-y", "--no-install-recommends", *PACKAGES, **quiet)


def main() -> int:
    """Print the path, or an error."""
    if configured := os.environ.get("KERN_CHROMIUM"):
        if not starts(configured):
            print(f"KERN_CHROMIUM={configured} does not start", file=sys.stderr)
            return 1
        print(configured)
        return 0
    path = on_path() or from_playwright()
    if not path and "--find" not in sys.argv:
        path = apt_get() and on_path()
        path = path or (run(sys.executable, "-m", "playwright", "install", "chromium") and from_playwright())
    if path:
        print(path)
        return 0
    print("no Chromium: install one, or set KERN_CHROMIUM to its path", file=sys.stderr)
    return 1 if os.environ.get("CI") else 0


if __name__ == "__main__":
    sys.exit(main())
