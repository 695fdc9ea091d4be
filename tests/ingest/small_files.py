"""A small file of each format, made by the tests of its importer: for what must hold for all formats."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent / "importers"))

import test_adk as adk
import test_agno as agno
import test_anthropic as anthropic
import test_atif as atif
import test_chatgpt_export as chatgpt_export
import test_claude_ai_export as claude_ai_export
import test_claude_code as claude_code
import test_codex as codex
import test_copilot_cli as copilot_cli
import test_cursor as cursor
import test_gemini_cli as gemini_cli
import test_hf_sts as hf_sts
import test_inspect_ai as inspect_ai
import test_jupyter_chat as jupyter_chat
import test_kubiya as kubiya
import test_langchain as langchain
import test_langgraph as langgraph
import test_llm as llm
import test_openai_agents as openai_agents
import test_openai_batch as openai_batch
import test_openai_responses as openai_responses
import test_opencode as opencode
import test_openhands as openhands
import test_otel as otel
import test_pi as pi
import test_qwen_code as qwen_code
import test_sharegpt as sharegpt
import test_swe_agent as swe_agent
import test_tau2_folder as tau2
import test_tau_bench as tau_bench
import test_vscode_copilot as vscode_copilot


class JsonFile(NamedTuple):
    """A file of JSON.

    Attributes:
        importer: The name of the importer that reads it.
        name: Its name.
        records: Its values.
        are_lines: Whether each is a line; else there is one, which is a document.
    """

    importer: str
    name: str
    records: list[Any]
    are_lines: bool

    @property
    def data(self) -> bytes:
        """Its content, as its program writes it."""
        if self.are_lines:
            return "".join(json.dumps(record) + "\n" for record in self.records).encode()
        return json.dumps(self.records[0], indent=1).encode()


def json_files() -> list[JsonFile]:
    """The files of JSON, each accepted by one importer only."""
    ask = {"role": "user", "content": "When does it open?"}
    use = {"id": "c1", "type": "function", "function": {"name": "hours", "arguments": '{"day": "mon"}'}}
    call = {"role": "assistant", "content": None, "tool_calls": [use]}
    talk = [ask, call, {"role": "tool", "tool_call_id": "c1", "content": "9-17"}, {"role": "assistant", "content": "9"}]
    first, _ = otel.support_trace("a1", "talk-1", [], "Hello")
    messages = [langchain.nested(message) for message in langchain.MESSAGES]
    turns = [sharegpt.turn("human", "Open?"), sharegpt.turn("gpt", "At nine."), sharegpt.turn("human", "Sure?")]
    first_turn = codex.turn(codex.TURN_1, codex.text("user", "one"), codex.call(), codex.output("ok"))
    second_turn = codex.turn(codex.TURN_2, codex.text("user", "two"), codex.text("assistant", "Yes."))
    batch = [openai_batch.result(f"q{n}", openai_batch.completion(f"Answer {n}", number=n)) for n in (1, 2)]
    documents = {
        "adk": adk.export(adk.turn()),
        "atif": atif.trajectory(),
        "chatgpt_export": [chatgpt_export.conversation(chatgpt_export.TALK, "u2")],
        "claude_ai_export": [claude_ai_export.conversation(*claude_ai_export.TREE)],
        "inspect_ai": inspect_ai.document(inspect_ai.sample()),
        "jupyter_chat": jupyter_chat.CHAT,
        "langchain": messages,
        "opencode": opencode.export(*opencode.TALK),
        "swe_agent": swe_agent.TRAJECTORY,
        "tau2": tau2.experiment() | {"simulations": [tau2.simulation("a"), tau2.simulation("b", task_id="c")]},
        "tau_bench": [tau_bench.record(3, 0), tau_bench.record(3, 1)],
        "vscode_copilot": vscode_copilot.SESSION,
    }
    lines = {
        "anthropic": [anthropic.request(anthropic.ASK, anthropic.CALLS, anthropic.ANSWERED, anthropic.DONE)],
        "chat": [{"messages": talk, "id": "one"}, {"messages": talk[:1] + talk[3:], "id": "two"}],
        "claude_code": claude_code.simple().user("u2", "Thanks").answer("b1", "m3", "Bye").records,
        "codex": [codex.meta(), *first_turn, *second_turn],
        "copilot_cli": list(copilot_cli.TALK),
        "cursor": list(cursor.TALK),
        "gemini_cli": [*gemini_cli.TALK, gemini_cli.user("u2", "two", 20), gemini_cli.answer("g3", "Two.", 21)],
        "hf_sts": hf_sts.RECORDS,
        "kubiya": [kubiya.BODY],
        "langchain": langchain.traces(),
        "openai_batch": batch,
        "openai_responses": openai_responses.ITEMS,
        "openhands": list(openhands.TALK),
        "otel": otel.lines_of(first),
        "pi": pi.simple().user("Again.").answer("Yes.").records,
        "qwen_code": list(qwen_code.TALK),
        "vscode_copilot": list(vscode_copilot.LOG),
        "sharegpt": [{"id": "x", "conversations": turns}, {"id": "y", "conversations": turns[:2]}],
    }
    files = [JsonFile(name, f"{name}.json", [value], are_lines=False) for name, value in documents.items()]
    return files + [JsonFile(name, f"{name}.jsonl", records, are_lines=True) for name, records in lines.items()]


def write_adk(path: Path) -> None:
    """A database of ADK."""
    adk.database(path, adk.turn())


def write_langgraph(path: Path) -> None:
    """A database of checkpoints."""
    recorder = langgraph.Recorder(path)
    langgraph.record_turn(recorder)
    recorder.connection.close()


def write_llm(path: Path) -> None:
    """A log of llm."""
    llm.record_thread(llm.Log(path))


def write_opencode(path: Path) -> None:
    """A database of OpenCode."""
    opencode.make_database(path, opencode.export(*opencode.TALK))


def write_inspect_ai(path: Path) -> None:
    """An archive of inspect_ai."""
    sample = inspect_ai.sample()
    inspect_ai.archive(path, {"header.json": inspect_ai.header(), "samples/7_epoch_2.json": sample})


BINARY_FILES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "adk": ("adk.db", write_adk),
    "agno": ("agno.db", agno.write_small),
    "inspect_ai": ("log.eval", write_inspect_ai),
    "langgraph": ("checkpoints.sqlite", write_langgraph),
    "llm": ("logs.db", write_llm),
    "openai_agents": ("sessions.db", openai_agents.write_small),
    "opencode": ("opencode.db", write_opencode),
}
"""The names of other files, by their importer, and what makes them."""


def binary_data(importer: str, folder: Path) -> tuple[str, bytes]:
    """The name and the content of a file that is not text."""
    name, write = BINARY_FILES[importer]
    path = folder / name
    write(path)
    if path.read_bytes().startswith(b"SQLite"):
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
    return name, path.read_bytes()
