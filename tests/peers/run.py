"""Run the tests of the bridges, and other frameworks' own tests on our store beside theirs; see `make peers`.

It prints a table with the counts, and fails if a test fails only on our store without being listed in
``expected_differences.toml``, or is listed there and passes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import results
import sdists

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OWN_TESTS = ("tests/bridges", "tests/parity")
_FAILED_TESTS = 1  # pytest's exit code


class Suite(NamedTuple):
    """Tests of a source distribution that use a store, and the plugin that replaces it with ours."""

    sdist: str
    plugin: str
    parts: dict[str, tuple[str, ...]]  # by name: files and folders
    options: tuple[str, ...] = ()


SUITES = (
    Suite(
        "openai-agents",
        "openai_agents_plugin",
        {
            "sessions": (
                "tests/memory/test_session.py",
                "tests/memory/test_session_limit.py",
                "tests/extensions/memory/test_async_sqlite_session.py",
                "tests/extensions/memory/test_encrypt_session.py",
            ),
            "human in the loop": (
                "tests/test_hitl_session_scenario.py",
                "tests/test_hitl_error_scenarios.py",
                "tests/deferred_session_writes",
            ),
            "other memory": ("tests/memory",),
            "runs with a session": (
                "tests/test_agent_runner.py",
                "tests/test_agent_runner_streamed.py",
                "tests/test_run_impl_resume_paths.py",
                "tests/test_max_turns.py",
                "tests/test_soft_cancel.py",
            ),
        },
    ),
    Suite(
        "langgraph-checkpoint-sqlite",
        "langgraph_plugin",
        {
            "checkpoints": (
                "tests/test_aiosqlite.py",
                "tests/test_sqlite.py",
                "tests/test_get_delta_channel_history.py",
                "tests/test_delta_channel_migration.py",
                "tests/test_delta_parent_walk.py",
                "tests/test_writes_task_path_migration.py",
            )
        },
        ("-o", "addopts="),
    ),
)


class Row(NamedTuple):
    """A row of the table: counts by store."""

    suite: str
    theirs: str
    ours: dict[str, str]


def run_pytest(folder: Path, report: Path, *arguments: str, **variables: str) -> str:
    """Run pytest in a folder; returns what it printed if tests failed, otherwise an empty string."""
    options = ["-q", "--tb=short", "-o", "junit_family=xunit1", f"--junit-xml={report}"]
    command = [sys.executable, "-m", "pytest", *options, *arguments]
    process = subprocess.run(
        command, cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False, timeout=900
    )
    if process.returncode not in {0, _FAILED_TESTS}:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{process.stdout}{process.stderr}")
    return process.stdout if process.returncode else ""


def run_suite(suite: Suite, folder: Path, report: Path, *, is_ours: bool) -> str:
    """Run the tests of a suite with its own store or ours."""
    paths = list(dict.fromkeys(path for part in suite.parts.values() for path in part))
    options = ["-c", "pyproject.toml", "--rootdir", ".", "-p", "no:cacheprovider", "-p", "no:playwright"]
    options += ["--timeout=15", *suite.options, *(["-p", suite.plugin] if is_ours else ())]
    search_path = os.pathsep.join([str(sdists.LIBRARIES), str(HERE)])
    return run_pytest(folder, report, *options, *paths, PYTHONPATH=search_path)


def compare(suite: Suite, their_report: Path, our_report: Path) -> tuple[list[Row], list[str]]:
    """The rows of a suite, and the problems: differences that are not expected, and expected ones that are none.

    Counted are the tests that use a store.
    """
    theirs, ours, users = results.by_test(their_report), results.by_test(our_report), results.using_store(our_report)
    with (HERE / "expected_differences.toml").open("rb") as file:
        expected = [test for group in tomllib.load(file).get(suite.sdist, []) for test in group["tests"]]
    failed = {test for test, has_passed in theirs.items() if has_passed and not ours.get(test, False)}
    is_listed = {test: test in expected or test.partition("[")[0] in expected for test in theirs}
    problems = [f"fails only on our store: {test}" for test in sorted(failed) if not is_listed[test]]
    problems += [
        f"is listed as a difference, and passes: {test}"
        for test, listed in is_listed.items()
        if listed and theirs[test] and test not in failed
    ]
    names = {*theirs, *(test.partition("[")[0] for test in theirs)}
    problems += [f"is listed as a difference, and does not exist: {test}" for test in expected if test not in names]
    rows, rest = [], users & theirs.keys()
    for part, paths in suite.parts.items():
        prefixes = tuple(path.removesuffix(".py").replace("/", ".") for path in paths)
        tests = {test for test in rest if test.partition("::")[0].startswith(prefixes)}
        rest -= tests
        passed = [sum(outcomes.get(test, False) for test in tests) for outcomes in (theirs, ours)]
        title = f"{suite.sdist} {version(suite.sdist)}: {part}"
        rows.append(Row(title, f"{passed[0]} of {len(tests)}", {"sqlite": f"{passed[1]} of {len(tests)}"}))
    return rows, problems


def own_rows(report: Path) -> list[Row]:
    """The rows of our own tests that run on another framework's store, too: those that record a ``suite``."""
    counts: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
    notes: dict[str, dict[str, str]] = defaultdict(dict)
    for result in results.read(report):
        values = result.properties
        if "suite" not in values or result.has_passed is None:
            continue
        suite, store = values["suite"], values["store"]
        if "note" in values:
            notes[suite][store] = values["note"]
        count = counts[suite][store]
        count[0] += int(values.get("passed", result.has_passed))
        count[1] += int(values.get("total", 1))
    rows = []
    for suite, by_store in counts.items():
        texts = {store: notes[suite].get(store, f"{n} of {total}") for store, (n, total) in by_store.items()}
        rows.append(Row(suite, texts.pop("theirs", ""), texts))
    return rows


def print_table(rows: list[Row]) -> None:
    """Print the rows as a table in Markdown."""
    engines = ("sqlite", "duckdb", "postgres")
    print(f"\n| tests | their store | ours on {' | '.join(engines)} |\n|{'---|' * 5}")
    for row in rows:
        print(f"| {row.suite} | {row.theirs} | {' | '.join(row.ours.get(engine, '') for engine in engines)} |")


def main() -> int:
    """Run everything; returns the exit code."""
    start = time.monotonic()
    rows: list[Row] = []
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(3) as pool:
        reports = Path(folder)
        own_report = reports / "own.xml"
        own = pool.submit(run_pytest, ROOT, own_report, "-n", "2", *OWN_TESTS, KERN_PEERS="1")
        runs: list[tuple[Suite, list[Path], list[Future[str]]]] = []
        for suite in SUITES:
            try:
                sdists.install_plugins()
                source = sdists.unpack(suite.sdist)
            except sdists.NotDownloaded as error:
                print(f"SKIPPED: the tests of {suite.sdist} are not run. {error}")
                continue
            files = [reports / f"{suite.sdist}-{side}.xml" for side in ("theirs", "ours")]
            sides = zip(files, (False, True), strict=True)
            futures = [pool.submit(run_suite, suite, source, file, is_ours=is_ours) for file, is_ours in sides]
            runs.append((suite, files, futures))
        for suite, files, futures in runs:
            outputs = [future.result() for future in futures]
            suite_rows, differences = compare(suite, *files)
            rows += suite_rows
            problems += differences
            if differences:
                print(outputs[1])
        if output := own.result():
            print(output)
            problems.append("tests of the bridges, or scripts of Agno, fail")
        rows += own_rows(own_report)
    print_table(rows)
    print(f"\n{time.monotonic() - start:.0f} s")
    for problem in problems:
        print(f"FAILED: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
