"""The messages of an OpenCode session: a message and its parts become a message, and one for each result of a tool."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kern_nb.ingest.importer import hash_record
from kern_nb.ingest.parsing.parts import simplify
from kern_nb.ingest.parsing.times import to_time_from_ms
from kern_nb.ingest.parsing.values import to_cost, to_count, to_id, to_list, to_number, to_object, to_text, without
from kern_nb.ingest.run_splitter import SourceMessage
from kern_nb.records import Message, Run, ToolCall, Usage, text_of

_MAPPED_INFO = frozenset({"id", "sessionID", "role", "time", "tokens", "cost", "modelID", "parentID", "model"})
# Ids of messages and parts: a fork copies the rest under new ones.
_OWN_IDS = frozenset({"id", "sessionID", "messageID", "parentID"})
_STEPS = ("step-start", "step-finish")  # the message states the same tokens and cost


@dataclass(slots=True)
class StoredMessage:
    """A message as OpenCode stores it, and its parts in order."""

    info: dict[str, Any]
    parts: list[dict[str, Any]] = field(default_factory=list)
    line: int | None = None
    is_cut: bool = False

    @property
    def message_id(self) -> str:
        """Its id; ids ascend in time."""
        return to_id(self.info.get("id")) or ""

    @property
    def created(self) -> float:
        """When it was created, in milliseconds."""
        return to_number(to_object(self.info.get("time")).get("created")) or 0

    @property
    def is_prompt(self) -> bool:
        """Whether a person wrote it: OpenCode writes requests of a compaction and continuations as a user, too."""
        if self.info.get("role") != "user":
            return False
        return not self.parts or any(map(_is_personal, self.parts))


def _is_personal(part: dict[str, Any]) -> bool:
    return (
        part.get("type") in ("text", "file", "agent", "subtask")
        and not part.get("synthetic")
        and not part.get("ignored")
    )


def to_source_messages(stored: StoredMessage) -> list[SourceMessage]:
    """The message, then the results of its calls."""
    info, parts = stored.info, stored.parts
    when = f"{int(stored.created):015d}" if stored.created else f"{info.get('sessionID')}/{stored.message_id}"
    key = f"{when}:{info.get('role')}"
    if info.get("role") == "assistant":
        message = _to_answer(info, parts)
    else:
        message = _to_prompt(info, parts, is_prompt=stored.is_prompt)
        key += f":{hash_record(json.dumps([text_of(message.content)]))[:8]}"
    record = json.dumps([_copied(info, "summary"), [_copied(part) for part in parts]], sort_keys=True)
    suffix = "~" if stored.is_cut else ""
    messages = [SourceMessage(message, record, key + suffix, stored.is_prompt)]
    for part in parts:
        result = _to_result(part)
        if result is not None:
            messages.append(SourceMessage(result, None, f"{key}:{result.tool_call_id}", starts_run=False))
    return messages


def _copied(fields: dict[str, Any], *excluded: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in _OWN_IDS and key not in excluded}


def _created_at(info: dict[str, Any]) -> datetime | None:
    return to_time_from_ms(to_object(info.get("time")).get("created"))


def _to_prompt(info: dict[str, Any], parts: list[dict[str, Any]], *, is_prompt: bool) -> Message:
    content: list[Any] = []
    other_parts: list[Any] = []
    for part in parts:
        if is_prompt and not _is_personal(part):
            other_parts.append(_copied(part))
        elif part.get("type") == "text" and isinstance(part.get("text"), str):
            content.append({"type": "text", "text": part["text"]})
        elif part.get("type") == "subtask" and isinstance(part.get("prompt"), str):
            content.append({"type": "text", "text": part["prompt"]})
            other_parts.append(_copied(part))
        elif part.get("type") == "file":
            content.append(_copied(part))
        else:
            other_parts.append(_copied(part))
    extra = without(info, _MAPPED_INFO)
    if other_parts:
        extra["parts"] = other_parts
    if any(part.get("type") == "compaction" for part in parts):
        extra["compaction"] = True
    role = to_text(info.get("role")) or "user"
    return Message(
        role=role,
        content=simplify(content) or None,
        message_id=to_id(info.get("id")),
        created_at=_created_at(info),
        extra=extra,
    )


def _to_answer(info: dict[str, Any], parts: list[dict[str, Any]]) -> Message:
    content: list[Any] = []
    other_parts: list[Any] = []
    calls: list[ToolCall] = []
    for part in parts:
        kind = part.get("type")
        if kind == "text" and isinstance(part.get("text"), str):
            content.append({"type": "text", "text": part["text"]})
        elif kind == "reasoning" and isinstance(part.get("text"), str):
            content.append({"type": "thinking", "thinking": part["text"]})
        elif kind == "file":
            content.append(_copied(part))
        elif kind == "tool":
            calls.append(_to_call(part))
        elif kind not in _STEPS:
            other_parts.append(_copied(part))
    extra = without(info, _MAPPED_INFO)
    if other_parts:
        extra["parts"] = other_parts
    if info.get("summary") is True:
        extra["compaction"] = True
    usage = _to_usage(info)
    if usage is not None:
        extra["usage"] = without({"tokens": info.get("tokens"), "cost": info.get("cost")}, ())
    return Message(
        role="assistant",
        content=simplify(content) or None,
        tool_calls=calls,
        model=to_text(info.get("modelID")),
        usage=usage,
        message_id=to_id(info.get("id")),
        created_at=_created_at(info),
        extra=extra,
    )


def _to_call(part: dict[str, Any]) -> ToolCall:
    state = to_object(part.get("state"))
    start, end = (to_number(to_object(state.get("time")).get(name)) for name in ("start", "end"))
    extra = without(state, ("status", "input", "output", "error"))
    extra |= without(part, ("id", "sessionID", "messageID", "type", "tool", "callID", "state"))
    return ToolCall(
        tool_call_id=to_id(part.get("callID")) or to_id(part.get("id")),
        tool_name=to_text(part.get("tool")),
        args=state.get("input"),
        duration_s=None if start is None or end is None or end < start else (end - start) / 1000,
        created_at=to_time_from_ms(start),
        extra=extra,
    )


def _to_result(part: dict[str, Any]) -> Message | None:
    """The result that a part of a call states; None while the call runs."""
    state = to_object(part.get("state"))
    if part.get("type") != "tool" or state.get("status") not in ("completed", "error"):
        return None
    is_error = state["status"] == "error"
    attachments = to_list(state.get("attachments"))
    return Message(
        role="tool",
        content=state.get("error") if is_error else state.get("output"),
        tool_call_id=to_id(part.get("callID")) or to_id(part.get("id")),
        tool_name=to_text(part.get("tool")),
        is_error=is_error,
        created_at=to_time_from_ms(to_object(state.get("time")).get("end")),
        extra={"attachments": attachments} if attachments else {},
    )


def _to_usage(info: dict[str, Any]) -> Usage | None:
    """Usage with cached tokens as a part of the input, and reasoning as a part of the output.

    All zero is what an answer begins with: its usage is unknown. A cost of 0 is that of a model without a known price.
    """
    tokens = to_object(info.get("tokens"))
    cache = to_object(tokens.get("cache"))
    fields = (tokens.get("input"), tokens.get("output"), tokens.get("reasoning"), cache.get("read"), cache.get("write"))
    counts = [to_count(value) for value in fields]
    cost = to_cost(info.get("cost"))
    if not any(counts) and cost is None:
        return None
    n_input, n_output, n_reasoning, n_read, n_written = counts
    all_input = None if n_input is None else n_input + (n_read or 0) + (n_written or 0)
    total = to_count(tokens.get("total"))
    all_output = n_output
    if n_output is not None and (total is None or all_input is None or total != all_input + n_output):
        all_output = n_output + (n_reasoning or 0)
    return Usage(
        input_tokens=all_input,
        output_tokens=all_output,
        cache_read_tokens=n_read,
        cache_write_tokens=n_written,
        reasoning_tokens=n_reasoning,
        total_tokens=total,
        cost=cost,
    )


def group_by_run(messages: list[StoredMessage]) -> list[list[StoredMessage]]:
    """The messages of each run: a prompt, and the answers that name it or a message of its run as their parent."""
    groups: list[list[StoredMessage]] = []
    owners: dict[str, list[StoredMessage]] = {}
    has_prompt = False
    for stored in messages:
        if not groups or (stored.is_prompt and has_prompt):
            groups.append([])
        has_prompt = has_prompt or stored.is_prompt
        parent = to_id(stored.info.get("parentID")) or ""
        group = owners.get(parent, groups[-1])
        group.append(stored)
        owners[stored.message_id] = group
    return groups


def set_outcome(run: Run, group: list[StoredMessage]) -> None:
    """Set the end and the status of a run, which its last answer states."""
    answers = [stored.info for stored in group if stored.info.get("role") == "assistant"]
    if not answers:
        return
    run.model_provider = to_text(answers[-1].get("providerID"))
    ends = [to_time_from_ms(to_object(info.get("time")).get("completed")) for info in answers]
    finished = [time for time in ends if time is not None]
    if finished and run.created_at is not None and max(finished) >= run.created_at:
        run.finished_at = max(finished)
        run.duration_s = (run.finished_at - run.created_at).total_seconds()
    error = answers[-1].get("error")
    if error:
        name = to_text(to_object(error).get("name"))
        message = to_text(to_object(to_object(error).get("data")).get("message"))
        run.status = "CANCELLED" if name == "MessageAbortedError" else "ERROR"
        run.error = message or name or "The answer failed."
    elif ends[-1] is None:
        run.status = "INTERRUPTED"
