"""The older tables of llm's log: conversations of responses, each with its prompt, tool calls and tool results.

The results that a response row has answer the calls of the response before. A response without a conversation is a
conversation of its own.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from kern_nb.ingest.importers.llm.parts import Answer, Contents, require_text, starts_run
from kern_nb.ingest.parsing.parts import simplify
from kern_nb.ingest.parsing.sqlite_rows import rows
from kern_nb.ingest.parsing.values import load_json, to_args, to_id, to_text
from kern_nb.ingest.run_splitter import SourceMessage
from kern_nb.records import Message, ToolCall

_CHILDREN = ("prompt_attachments", "prompt_fragments", "system_fragments", "tool_calls", "tool_results")


class Responses:
    """The responses of a file by conversation."""

    def __init__(
        self, connection: sqlite3.Connection, tables: Mapping[str, frozenset[str]], contents: Contents
    ) -> None:
        self.contents = contents
        self.titles: dict[str, str | None] = {}
        self.by_conversation: dict[str, list[dict[str, Any]]] = {}
        self._children: dict[str, dict[Any, list[dict[str, Any]]]] = {}
        if "responses" not in tables:
            return
        for row in rows(connection, "responses", "ORDER BY rowid"):
            conversation_id = to_id(row.get("conversation_id")) or to_id(row.get("id")) or "response"
            self.by_conversation.setdefault(conversation_id, []).append(row)
        if "conversations" in tables:
            self.titles = {str(row.get("id")): to_text(row.get("name")) for row in rows(connection, "conversations")}
        for name in _CHILDREN:
            children: dict[Any, list[dict[str, Any]]] = defaultdict(list)
            if "response_id" in tables.get(name, ()):
                order = 'ORDER BY "order", rowid' if "order" in tables[name] else "ORDER BY rowid"
                for row in rows(connection, name, order):
                    children[row.get("response_id")].append(row)
            self._children[name] = children
        self._result_attachments: dict[Any, list[Any]] = defaultdict(list)
        if "tool_result_id" in tables.get("tool_results_attachments", ()):
            for row in rows(connection, "tool_results_attachments", 'ORDER BY "order"'):
                self._result_attachments[row.get("tool_result_id")].append(row.get("attachment_id"))

    def messages(self, row: dict[str, Any], earlier_system: str | None) -> list[tuple[SourceMessage, Answer | None]]:
        """The messages of a response row; the system prompt only where it changes."""
        response_id, answer = row.get("id"), Answer(row)
        messages: list[tuple[str, Message]] = []
        system = self.system(row)
        if system and system != earlier_system:
            messages.append(("system", Message(role="system", content=system)))
        for index, result in enumerate(self._children["tool_results"].get(response_id, ())):
            message = _result(result)
            if attachments := self._result_attachments.get(result.get("id")):
                message.extra["attachments"] = [self.contents.attachment_part(item) for item in attachments]
            messages.append((f"result{index}", message))
        if prompt := self._prompt(row, has_results=bool(messages and messages[-1][1].role == "tool")):
            messages.append(("prompt", Message(role="user", content=prompt)))
        message = Message(role="assistant", content=_answer_content(row))
        message.tool_calls = [_call(call) for call in self._children["tool_calls"].get(response_id, ())]
        answer.describe(message)
        messages.append(("answer", message))
        items: list[tuple[SourceMessage, Answer | None]] = []
        for name, item in messages:
            item.created_at = answer.start
            values = [item.role, item.content, item.tool_call_id, [(c.tool_name, c.args) for c in item.tool_calls]]
            record = [*values, *(answer.record if item is message else ())]
            before = items[-1][0].message if items else None
            source = SourceMessage(item, record, f"{response_id}:{name}", starts_run(item, before))
            items.append((source, answer if item is message else None))
        return items

    def system(self, row: dict[str, Any]) -> str | None:
        """The system prompt of a response, after its fragments."""
        return self._with_fragments("system_fragments", row, require_text(row.get("system"), "system")) or None

    def _prompt(self, row: dict[str, Any], *, has_results: bool) -> Any:
        text = self._with_fragments("prompt_fragments", row, require_text(row.get("prompt"), "prompt"))
        attachments = self._children["prompt_attachments"].get(row.get("id"), ())
        parts = [{"type": "text", "text": text}] if text or not (attachments or has_results) else []
        parts += [self.contents.attachment_part(link.get("attachment_id")) for link in attachments]
        return simplify(parts) or None

    def _with_fragments(self, table: str, row: dict[str, Any], text: str) -> str:
        ids = [link.get("fragment_id") for link in self._children[table].get(row.get("id"), ())]
        texts = [self.contents.fragments.get(i, "") for i in ids]
        return "\n".join([*texts, *([text] if text else [])])


def _answer_content(row: dict[str, Any]) -> Any:
    text, reasoning = require_text(row.get("response"), "response"), to_text(row.get("reasoning"))
    if not reasoning:
        return text
    return [{"type": "reasoning", "reasoning": reasoning}, *([{"type": "text", "text": text}] if text else [])]


def _call(row: dict[str, Any]) -> ToolCall:
    args, notes = to_args(row.get("arguments"))
    return ToolCall(
        tool_call_id=to_id(row.get("tool_call_id")), tool_name=to_text(row.get("name")), args=args, extra=notes
    )


def _result(row: dict[str, Any]) -> Message:
    exception = to_text(row.get("exception"))
    return Message(
        role="tool",
        content=row.get("output") if isinstance(row.get("output"), str) else load_json(row.get("output")),
        tool_call_id=to_id(row.get("tool_call_id")),
        tool_name=to_text(row.get("name")),
        is_error=True if exception else None,
        extra={"exception": exception} if exception else {},
    )
