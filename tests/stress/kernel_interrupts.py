"""Interrupt a real kernel at random moments while its cells use the magics; another process then opens the file.

    python tests/stress/kernel_interrupts.py FILE [--interrupts N] [--seed N]

Each cell is interrupted once and must end. The last line of output is a JSON object; the exit code is 1 if a cell hung or
something was held, lost or damaged.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time

from jupyter_client.manager import KernelManager

SETUP = """
%load_ext kern_nb
%kern attach {target}
from kern_nb import store_registry
from kern_nb.records import Message, Run
store = store_registry.find(None)
acknowledged = []
def append():
    acknowledged.append(store.append_run("chat", Run(messages=[Message(role="user", content="hello")])).run_id)
append()
"""
CELLS = (
    "while True: append()",
    "while True: store.runs_df(); append()",
    "%kern sessions\n%kern show chat\nwhile True: append()",
    "%%kern_sql\nSELECT count(*) FROM messages a, messages b, messages c, messages d, messages e, messages f",
    "run = store.start_run('live', input='x')\nwhile True: store.append_messages(run.run_id, [Message(role='user')])",
    "for i in range(10**6): store.close(); append()",
)
CHECK = """
stored = set(store.runs_df().run_id)
report = [p for p in store.check().problems if p.kind not in ("interrupted", "running elsewhere", "left started")]
print("RESULT", len(acknowledged), len([a for a in acknowledged if a not in stored]), len(report))
"""
OPEN = "import sys, duckdb; duckdb.connect(sys.argv[1]).execute('SELECT 1')"


def main(target: str, interrupts: int, seed: int) -> int:
    """Start a kernel, interrupt its cells, then check the store."""
    rng = random.Random(seed)
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel()
    client = manager.blocking_client()
    client.start_channels()
    client.wait_for_ready(timeout=100)

    def execute(code: str) -> tuple[str, str]:
        output: list[str] = []

        def hook(message: dict[str, dict[str, str]]) -> None:
            output.append(message["content"].get("text", ""))

        reply = client.execute_interactive(code, timeout=100, output_hook=hook)["content"]
        return reply.get("ename", ""), "".join(output)

    error, _ = execute(SETUP.format(target=target))
    assert error == "", error
    names: dict[str, int] = {}
    slowest = 0.0
    for _ in range(interrupts):
        client.execute(rng.choice(CELLS))
        time.sleep(0.05 + rng.random() * 0.5)
        start = time.monotonic()
        for attempt in range(4):
            manager.interrupt_kernel()
            try:
                reply = client.get_shell_msg(timeout=30)["content"]
            except Exception:  # the interrupt came within a finalizer, where Python drops it
                if attempt == 3:
                    raise
            else:
                break
        slowest = max(slowest, time.monotonic() - start)
        name = reply.get("ename", reply["status"])
        names[name] = names.get(name, 0) + 1
    time.sleep(0.5)
    free = subprocess.run([sys.executable, "-c", OPEN, target], capture_output=True, text=True, check=False)
    error, output = execute(CHECK)
    result = next((line.split()[1:] for line in output.splitlines() if line.startswith("RESULT")), None)
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    print(json.dumps({"ends": names, "slowest_s": round(slowest, 2), "free": free.stderr[-200:], "result": result}))
    return int(bool(error or free.returncode or result is None or result[1:] != ["0", "0"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--interrupts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sys.exit(main(options.target, options.interrupts, options.seed))
