"""Recognize other programs' databases by their tables and columns, so that an error can name the program.

One line a layout. A layout matches if each of its tables exists with at least these columns; ``ANY`` is a table of any
name, because several programs let users choose it. The first match counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

ANY = "*"

Columns = frozenset[str]


def _columns(names: str) -> Columns:
    return frozenset(names.split())


LAYOUTS: tuple[tuple[str, dict[str, Columns]], ...] = (
    ("Agno 2", {ANY: _columns("session_id session_type session_data runs")}),
    ("Agno 3", {ANY: _columns("session_id session_type session_data")}),
    ("OpenAI Agents", {ANY: _columns("session_id message_data")}),
    ("LangGraph checkpoints", {"checkpoints": _columns("thread_id checkpoint_ns checkpoint_id")}),
    ("LangGraph store", {"store": _columns("prefix key value")}),
    ("LangChain chat history", {ANY: _columns("id session_id message")}),
    ("Google ADK", {"sessions": _columns("app_name user_id id"), "events": _columns("session_id invocation_id")}),
    (
        "OpenCode",
        {"session": _columns("id"), "message": _columns("id session_id data"), "part": _columns("message_id")},
    ),
    ("Codex", {"threads": _columns("id rollout_path")}),
    ("Cursor", {"cursorDiskKV": _columns("key value")}),
    ("VS Code", {"ItemTable": _columns("key value")}),
    ("llm", {"responses": _columns("id model prompt response"), "conversations": _columns("id name model")}),
    ("llm", {"turns": _columns("thread_id tip_message_hash"), "threads": _columns("id tip_message_hash")}),
    ("AutoGen", {"chat_completions": _columns("invocation_id client_id session_id")}),
    ("Chainlit", {"threads": _columns("id"), "steps": _columns("id threadId")}),
    ("Open WebUI", {"chat": _columns("id user_id title chat")}),
    ("Letta", {"agents": _columns("id"), "messages": _columns("id agent_id"), "organizations": _columns("id")}),
    ("MLflow", {"experiments": _columns("experiment_id"), "runs": _columns("run_uuid")}),
    ("Langfuse", {"projects": _columns("id"), "traces": _columns("id project_id")}),
    ("Phoenix", {"traces": _columns("id trace_id"), "spans": _columns("id trace_rowid")}),
    ("n8n", {"workflow_entity": _columns("id"), "execution_entity": _columns("id")}),
    ("Dify", {"apps": _columns("id"), "conversations": _columns("id app_id"), "messages": _columns("conversation_id")}),
    ("AnythingLLM", {"workspace_chats": _columns("id prompt response")}),
    ("IPython's history", {"history": _columns("session line source"), "sessions": _columns("session start")}),
    ("Jupyter's notebook signatures", {"nbsignatures": _columns("algorithm signature")}),
    ("Django", {"django_migrations": _columns("app name applied")}),
)


def identify_program(tables: Mapping[str, AbstractSet[str]]) -> str | None:
    """The program that created tables, given the columns of each table by name; None if unknown."""
    return next((program for program, layout in LAYOUTS if _matches(tables, layout)), None)


def _matches(tables: Mapping[str, AbstractSet[str]], layout: Mapping[str, Columns]) -> bool:
    for name, columns in layout.items():
        candidates = tables.values() if name == ANY else (tables.get(name, frozenset()),)
        if not any(columns <= candidate for candidate in candidates):
            return False
    return True


def name_list(names: AbstractSet[str], *, most: int = 6) -> str:
    """Names for a message: the first few, shortened, without control characters."""
    texts = [name if name.isprintable() and len(name) <= 60 else repr(name[:60]) for name in sorted(names)[:most]]  # noqa: PLR2004
    return ", ".join(texts) + (f" and {len(names) - most} more" if len(names) > most else "")
