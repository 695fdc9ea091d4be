"""`%load_ext kern_nb` in a fresh kernel, after the kernel itself has started."""

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
        import ipykernel  # noqa: F401 - it provides the kernel
        from jupyter_client.manager import start_new_kernel
    except ImportError as error:
        raise Skipped(f"no kernel is installed: {error}") from error
    times = []
    for _ in range(3 if quick else 8):
        manager, client = start_new_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            times.append(_run_cell(client, CELL))
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    note = f"{len(times) - 1} kernels, the slowest {ms(max(times[1:]))}"
    yield Result("%load_ext kern_nb in a fresh kernel", median(times[1:]), "s", BAR_S, note=note)


def _run_cell(client: Any, code: str) -> float:
    """Run a cell and return the number it prints."""
    output: list[str] = []

    def record(message: dict[str, Any]) -> None:
        if message["msg_type"] in {"stream", "error"}:
            output.append(message["content"].get("text") or message["content"]["evalue"])

    client.execute_interactive(code, output_hook=record, timeout=60)
    return float("".join(output))
