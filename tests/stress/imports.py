"""Import mutated files: each is imported, partly or fully, or refused with a KernError; the store stays consistent.

    python tests/stress/imports.py [--files 12000] [--seed 0]

A chat file, a tau2 result and a bundle are changed at random: bytes, JSON nodes of other types, keys removed or
swapped, text truncated. Not part of the test suite. Prints counts; exits with 1 if an import or the store fails.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ingest"))

from bundles import fill_store
from test_malformed_records import GOOD, results, simulation

import kern_nb
from kern_nb.db import InMemoryDb, SqliteDb
from kern_nb.errors import KernError

VALUES = (
    *(None, True, -1, 0, 2**63, 10**400, -0.5, 1e308, "", "\x00", "\ud800", "x" * 2000, "2999-13-45", [], {}),
    *([[]], {"$type": "decimal", "value": "x"}, {"$type": "bytes"}, {"role": []}, ["user"], {"kern_nb": 1}, 10**15),
)


def samples(folder: Path) -> dict[str, str]:
    """Return a small file of each format, by its name."""
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"q": 1}'}}
    conversation = {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c", "content": "result"},
            {"role": "assistant", "content": "done", "usage": {"prompt_tokens": 3}},
        ],
        "metadata": {"a": 1},
    }
    bundle = folder / "bundle.json"
    kern_nb.export("chat", path=str(bundle), store=fill_store(InMemoryDb()))
    return {
        "chat.jsonl": json.dumps(conversation) + "\n" + json.dumps(GOOD),
        "tau2.json": results(simulation("a"), simulation("b", task_id=None)),
        "bundle.json": bundle.read_text(),
    }


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) below a value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [pair for key in keys for pair in ((value, key), *nodes(value[key]))]


def mutate_tree(text: str, rng: random.Random) -> str:
    """Change some JSON nodes of a text."""
    documents = [json.loads(line) for line in text.splitlines()] if text.count("\n") == 1 else [json.loads(text)]
    document = rng.choice(documents)
    for _ in range(rng.randint(1, 3)):
        every = nodes(document)
        if not every:
            break
        container, key = rng.choice(every)
        match rng.randrange(4):
            case 0 | 1:
                container[key] = copy.deepcopy(rng.choice(VALUES))
            case 2:
                del container[key]
            case 3:
                other, other_key = rng.choice(every)
                container[key] = copy.deepcopy(other[other_key]) if other_key in other or isinstance(other, list) else 1
    return "\n".join(json.dumps(d) for d in documents)


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Change, remove, repeat or truncate some bytes."""
    result = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(result) + 1)
        match rng.randrange(4):
            case 0:
                result[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del result[at : at + rng.randint(1, 30)]
            case 2:
                result[at:at] = result[max(0, at - 40) : at]
            case 3:
                del result[max(at, 10) :]
    return bytes(result)


def main() -> int:
    """Import mutated files into a SQLite store, which is checked after every 500 files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    counts: Counter[str] = Counter()
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="kern-imports-") as name:
        folder = Path(name)
        sample_texts = samples(folder)
        store = SqliteDb(folder / "s.db")
        for n in range(options.files):
            name_of_sample = rng.choice(list(sample_texts))
            path = folder / name_of_sample
            text = sample_texts[name_of_sample]
            if rng.random() < 0.6:
                content = mutate_tree(text, rng).encode("utf-8", "surrogatepass")
            else:
                content = mutate_bytes(text.encode("utf-8", "surrogatepass"), rng)
            path.write_bytes(content)
            try:
                report = store.ingest(path, progress=False)
                counts["imported" if not report.errors else "imported in part"] += 1
            except KernError as error:
                counts[f"refused: {type(error).__name__}"] += 1
            except Exception as error:  # noqa: BLE001 - every failure is counted
                problems.append(f"{n} {name_of_sample}: {type(error).__name__}: {error}"[:300])
            if n % 500 == 499 or n == options.files - 1:
                problems += inspect_store(store, n)
                store.close()
                store = SqliteDb(folder / f"s{n}.db")
    print(dict(counts))
    print(f"{options.files} files, {len(problems)} failures")
    print("\n".join(problems[:50]))
    return bool(problems)


def inspect_store(store: SqliteDb, n: int) -> list[str]:
    """Return the problems of the store: broken invariants, and frames that fail."""
    try:
        report = store.check()
        frames = (store.sessions_df, store.runs_df, store.messages_df, store.tool_calls_df, store.scores_df)
        for frame in frames:
            frame()
        # Not the ids of the frames: Arrow holds no lone surrogates, so a frame shows U+FFFD for each.
        for session_id in {session.session_id for session in store.list_sessions(limit=10_000)}:
            store.history(session_id)
    except Exception as error:  # noqa: BLE001 - every failure is counted
        return [f"store {n}: {type(error).__name__}: {error}"[:300]]
    return [f"store {n}: {p.kind} {p.session_id}: {p.detail}" for p in report.problems if p.kind != "interrupted"]


if __name__ == "__main__":
    sys.exit(main())
