"""Minimal databases of other programs, and snapshots of a folder to prove that it did not change."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb

AGNO_2 = """CREATE TABLE agno_sessions (session_id VARCHAR PRIMARY KEY, session_type VARCHAR, session_data JSON, agent_data JSON,
    metadata JSON, runs JSON, summary JSON, created_at BIGINT, updated_at BIGINT)"""
LAYOUTS = {
    "Agno 2": [AGNO_2, "INSERT INTO agno_sessions (session_id, session_type) VALUES ('s', 'agent')"],
    "Agno 3": [
        "CREATE TABLE my_agno (session_id VARCHAR PRIMARY KEY, session_type VARCHAR, session_data JSON, created_at BIGINT)",
        "CREATE TABLE my_agno_runs (run_id VARCHAR PRIMARY KEY, session_id VARCHAR, run_data JSON, run_index BIGINT)",
    ],
    "OpenAI Agents": [
        "CREATE TABLE agent_sessions (session_id VARCHAR PRIMARY KEY, created_at TIMESTAMP, updated_at TIMESTAMP)",
        "CREATE TABLE agent_messages (id INTEGER PRIMARY KEY, session_id VARCHAR, message_data VARCHAR, created_at TIMESTAMP)",
    ],
    "LangGraph checkpoints": [
        "CREATE TABLE checkpoints (thread_id VARCHAR, checkpoint_ns VARCHAR, checkpoint_id VARCHAR, metadata VARCHAR)",
        "CREATE TABLE writes (thread_id VARCHAR, checkpoint_ns VARCHAR, checkpoint_id VARCHAR, idx INTEGER)",
    ],
    "LangChain chat history": ["CREATE TABLE message_store (id INTEGER, session_id VARCHAR, message VARCHAR)"],
    "Google ADK": [
        "CREATE TABLE sessions (app_name VARCHAR, user_id VARCHAR, id VARCHAR, state VARCHAR)",
        "CREATE TABLE events (id VARCHAR, app_name VARCHAR, session_id VARCHAR, invocation_id VARCHAR)",
    ],
    "OpenCode": [
        "CREATE TABLE session (id VARCHAR, project_id VARCHAR)",
        "CREATE TABLE message (id VARCHAR, session_id VARCHAR, data VARCHAR)",
        "CREATE TABLE part (id VARCHAR, message_id VARCHAR, session_id VARCHAR, data VARCHAR)",
    ],
    "Open WebUI": ["CREATE TABLE chat (id VARCHAR, user_id VARCHAR, title VARCHAR, chat VARCHAR)"],
    "MLflow": ["CREATE TABLE experiments (experiment_id INTEGER)", "CREATE TABLE runs (run_uuid VARCHAR)"],
    "IPython's history": [
        "CREATE TABLE sessions (session INTEGER, start VARCHAR)",
        "CREATE TABLE history (session INTEGER, line INTEGER, source VARCHAR)",
    ],
    "Django": ["CREATE TABLE django_migrations (id INTEGER, app VARCHAR, name VARCHAR, applied VARCHAR)"],
}
UNKNOWN = {
    "tables": ["CREATE TABLE customers (id INTEGER)", "INSERT INTO customers VALUES (1)"],
    "a view": ["CREATE VIEW answer AS SELECT 42 AS n"],
    "our schema table without our columns": ["CREATE TABLE kern_schema (id INTEGER)"],
    "our names without our columns": [
        "CREATE TABLE agno_sessions (id INTEGER)",
        "CREATE TABLE agno_sessions_runs (id INTEGER)",
    ],
    "our name in capitals": ["CREATE TABLE AGNO_SESSIONS (id INTEGER)"],
    "our name in a view": ["CREATE VIEW agno_sessions AS SELECT 1 AS session_id"],
}
ALL = {**LAYOUTS, **{f"unknown: {name}": commands for name, commands in UNKNOWN.items()}}


def make_sqlite(path: Path, commands: Sequence[str], *, journal: str = "delete") -> None:
    """Create the SQLite file of a program that has ended."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode={journal}")
        for command in commands:
            connection.execute(command)
        connection.commit()


def make_duckdb(path: Path, commands: Sequence[str]) -> None:
    """Create the DuckDB file of a program that has ended."""
    with duckdb.connect(path) as connection:
        for command in commands:
            connection.execute(command)


def run_and_exit(code: str, *arguments: object) -> None:
    """Run Python code in a process that exits without closing anything; ``args`` are the arguments."""
    head = "import os, sys\nargs = sys.argv[1:]\n"
    script = head + textwrap.dedent(code) + "\nos._exit(0)\n"
    subprocess.run([sys.executable, "-c", script, *map(str, arguments)], check=True, timeout=60)


@contextlib.contextmanager
def running(code: str, *arguments: object) -> Iterator[None]:
    """Run Python code in a process that stays alive, with open files, until the end of the block."""
    head = "import os, sys\nargs = sys.argv[1:]\n"
    script = head + textwrap.dedent(code) + "\nprint('ready', flush=True)\nsys.stdin.read()\nos._exit(0)\n"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.stdin.close()
            process.wait(30)


def snapshot(folder: Path) -> dict[str, tuple[object, ...]]:
    """Names, bytes, modes and time stamps of the files in a folder, and of the folder."""
    result: dict[str, tuple[object, ...]] = {".": (folder.stat().st_mtime_ns,)}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        result[str(path.relative_to(folder))] = (
            content,
            status.st_mode,
            status.st_size,
            status.st_mtime_ns,
            status.st_ino,
        )
    return result
