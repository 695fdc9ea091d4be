"""`%load_ext kern_nb` in a fresh kernel: what it adds to what the kernel itself takes to start."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

from benchmarks.measure import Result, Skipped, median, ms

BAR_S = 0.15
CELL = """
import time
start = time.perf_counter()
get_ipython().run_line_magic("load_ext", "kern_nb")
print(time.perf_counter() - start)
"""


def run(*, quick: bool) -> Iterator[Result]:
    """The first cell of several kernels. The first kernel, which reads the files from disk, is not counted."""
    try:
        import ipykernel  # noqa: F401 - the kernels are its
        from jupyter_client.manager import start_new_kernel
    except ImportError as error:
        raise Skipped(f"no kernel to start: {error}") from error
    times = []
    for _ in range(3 if quick else 8):
        manager, client = start_new_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            times.append(_printed(client, CELL))
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    note = f"{len(times) - 1} kernels, the slowest {ms(max(times[1:]))}"
    yield Result("%load_ext kern_nb in a fresh kernel", median(times[1:]), "s", BAR_S, note=note)


def _printed(client: Any, code: str) -> float:
    """The number that a cell prints."""
    said: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        if message["msg_type"] in {"stream", "error"}:
            said.append(message["content"].get("text") or message["content"]["evalue"])

    client.execute_interactive(code, output_hook=hear, timeout=60)
    return float("".join(said))
