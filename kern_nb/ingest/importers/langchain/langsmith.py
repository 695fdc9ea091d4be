"""Runs of LangSmith: each step of a program is a run, and the runs of one trace form a tree.

A root run is a run of kern_nb, a conversation (``thread_id`` and similar in the metadata) a session; ``session_id`` of
a run is its project. The inputs of each model call repeat the messages before it: what was said already in the session
is recognized by its id or call id, else by its text and place, and not repeated.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kern_nb.ingest.importer import RECORD_ERRORS, error_text, hash_record
from kern_nb.ingest.importers.langchain.messages import REMOVE, fields_of, parse_message
from kern_nb.ingest.importers.langchain.traces import MODEL_TYPES, Trace, metadata_of
from kern_nb.ingest.parsing.times import parse_time
from kern_nb.ingest.parsing.usage import parse_usage
from kern_nb.ingest.parsing.values import (
    first_count,
    first_text,
    keep_scalars,
    to_cost,
    to_id,
    to_object,
    to_text,
)
from kern_nb.records import RESULT_ROLES, Message, Run, Usage, text_of

_TEXT_KEYS = ("input", "output", "question", "answer", "query", "text", "prompt", "response", "result", "content")


@dataclass(slots=True)
class _Said:
    """A message of a session that is known already."""

    message: Message
    text: str


class Conversation:
    """Collects the messages of a session over its traces.

    Attributes:
        problems: Why runs are not imported in full.
    """

    def __init__(self) -> None:
        self.said: list[_Said] = []
        self.problems: list[str] = []
        self._trace_start = 0

    def add(self, trace: Trace) -> list[Message]:
        """The messages that a trace adds."""
        self._trace_start = len(self.said)
        root = trace.root
        with self._reporting(root):
            self._add_new(messages_in(root.get("inputs")), root.get("start_time"))
        model_calls = {to_id(run.get("id")) for run in trace.runs if run.get("run_type") in MODEL_TYPES}
        for run in trace.runs:
            with self._reporting(run):
                if run.get("run_type") in MODEL_TYPES and to_id(run.get("parent_run_id")) not in model_calls:
                    self._add_model_call(run)
                elif run.get("run_type") == "tool" and run is not root:
                    self._add_tool_call(run)
        with self._reporting(root):
            self._add_new(messages_in(root.get("outputs")), root.get("end_time"))
        added = [said.message for said in self.said[self._trace_start :]]
        if not any(message.role != "system" for message in added):
            added += self._add_values(root)
        elif not any(message.role == "user" for message in added):
            self._add_prompt(root, added)
        return added

    @contextlib.contextmanager
    def _reporting(self, run: dict[str, Any]) -> Iterator[None]:
        try:
            yield
        except RECORD_ERRORS as error:
            self.problems.append(f"Run {run['id']!r} is not imported in full: {error_text(error)}.")

    def _add_model_call(self, run: dict[str, Any]) -> None:
        recent = [said.message for said in self.said[self._trace_start :]]
        # Tracers that know no chat models record the whole chat as one prompt.
        is_repeated = "prompts" in to_object(run.get("inputs")) and any(message.role == "user" for message in recent)
        if not is_repeated:
            with self._reporting(run):
                self._add_new(messages_in(run.get("inputs")), run.get("start_time"))
        outputs = messages_in(run.get("outputs"))
        for index, fields in enumerate(outputs):
            message = parse_message(fields, parse_time(run.get("end_time")))
            message.role = "assistant" if message.role == "user" else message.role
            describe_model_call(run, message, has_usage=index == len(outputs) - 1)
            self._append(message)
        if not outputs and (error := to_text(run.get("error"))):
            message = Message(role="assistant", created_at=parse_time(run.get("end_time")), extra={"error": error})
            describe_model_call(run, message, has_usage=True)
            self._append(message)

    def _add_tool_call(self, run: dict[str, Any]) -> None:
        """The result of a tool, for the pending call of that tool unless it states which."""
        time = parse_time(run.get("end_time"))
        results = [f for f in messages_in(run.get("outputs")) if f["type"] == "tool"]
        if results:
            message = parse_message(results[0], time)
        else:
            message = Message(
                role="tool",
                tool_name=to_text(run.get("name")),
                content=plain_value(run.get("outputs")),
                created_at=time,
            )
            message.tool_call_id = tool_call_of(run) or self._pending_call(message.tool_name)
        if error := to_text(run.get("error")):
            message.is_error, message.content = True, error if message.content is None else message.content
        recent = [said.message for said in self.said[self._trace_start :]]
        answered = {other.tool_call_id for other in recent if other.role in RESULT_ROLES}
        if message.tool_call_id is None or message.tool_call_id not in answered:
            self._append(message)

    def _pending_call(self, name: str | None) -> str | None:
        recent = [said.message for said in self.said[self._trace_start :]]
        answered = {message.tool_call_id for message in recent if message.role in RESULT_ROLES}
        calls = [call for message in recent for call in message.tool_calls if call.tool_name == name]
        return next((call.tool_call_id for call in calls if call.tool_call_id not in answered), None)

    def _add_new(self, items: list[dict[str, Any]], time: Any) -> None:
        """Add the messages that have not been said, compared in order.

        An equal text in an earlier trace is a repetition only if an answer is repeated, too: people say things twice.
        """
        matches: list[tuple[Message, int | None]] = []
        start = 0
        for fields in items:
            message = parse_message(fields, parse_time(time))
            index = self._find(message, start)
            matches.append((message, index))
            start = start if index is None else max(start, index + 1)
        earlier = [i for _, i in matches if i is not None and i < self._trace_start]
        has_history = any(self.said[i].message.role == "assistant" for i in earlier)
        for message, index in matches:
            is_repeated = index is not None and (
                has_history
                or index >= self._trace_start
                or bool(_identities(self.said[index].message) & _identities(message))
            )
            if not is_repeated:
                self._append(message)
            elif index is not None and index >= self._trace_start:
                self._complete(index, message)

    def _find(self, message: Message, start: int) -> int | None:
        """The index of an equal message from ``start`` on, or of one of this trace with the same id."""
        text = _signature(message)
        for index in range(start, len(self.said)):
            if _is_same(self.said[index], message, text):
                return index
        for index in range(self._trace_start, min(start, len(self.said))):
            if _identities(self.said[index].message) & _identities(message):
                return index
        return None

    def _complete(self, index: int, message: Message) -> None:
        """Set what the model saw of a result that is known from the run of its tool only."""
        result = self.said[index].message
        if result.role in RESULT_ROLES and result.message_id is None and message.content is not None:
            result.content, result.message_id = message.content, message.message_id
            result.is_error = message.is_error if result.is_error is None else result.is_error
            self.said[index] = _Said(result, _signature(result))

    def _append(self, message: Message) -> None:
        self.said.append(_Said(message, _signature(message)))

    def _add_values(self, root: dict[str, Any]) -> list[Message]:
        """The inputs and outputs of a trace without messages."""
        added = []
        for role, key, time in (("user", "inputs", "start_time"), ("assistant", "outputs", "end_time")):
            content = plain_value(root.get(key))
            if content is not None:
                added.append(Message(role=role, content=content, created_at=parse_time(root.get(time))))
                self._append(added[-1])
        return added

    def _add_prompt(self, root: dict[str, Any], added: list[Message]) -> None:
        content = plain_value(root.get("inputs"))
        if isinstance(content, str):
            message = Message(role="user", content=content, created_at=parse_time(root.get("start_time")))
            index = next((i for i, item in enumerate(added) if item.role != "system"), len(added))
            added.insert(index, message)
            self._append(message)


def _is_same(said: _Said, message: Message, text: str) -> bool:
    if _identities(said.message) & _identities(message):
        return True
    both_have_ids = said.message.message_id and message.message_id
    return not both_have_ids and said.message.role == message.role and said.text == text


def _identities(message: Message) -> set[tuple[str, str]]:
    """The ids that a message is recognized by: its own, that of the call it answers, those of its calls."""
    pairs = [("message", message.message_id)]
    if message.role in RESULT_ROLES:
        pairs.append(("result", message.tool_call_id))
    pairs += [("call", call.tool_call_id) for call in message.tool_calls]
    return {(kind, value) for kind, value in pairs if value}


def _signature(message: Message) -> str:
    text = text_of(message.content)
    calls = [(call.tool_name, call.args) for call in message.tool_calls]
    return hash_record(message.content if text is None else text, calls)


def messages_in(value: Any) -> list[dict[str, Any]]:
    """The fields of the messages in the inputs or outputs of a run, whatever library logged them."""
    return [fields for fields in _walk(value) if fields["type"] != REMOVE]


def _walk(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (fields for item in value for fields in _walk(item))
        return
    fields = fields_of(value)
    if fields is not None:
        yield fields
        return
    values = to_object(value)
    if isinstance(values.get("lc"), int):
        values = to_object(values.get("kwargs"))
    key = next((key for key in ("messages", "message", "generations", "choices") if key in values), None)
    if key is not None:
        yield from _walk(values[key])
    elif isinstance(values.get("text"), str) and ("generation_info" in values or values.get("type") == "Generation"):
        yield {"type": "ai", "content": values["text"]}
    elif isinstance(values.get("prompts"), list):
        yield from ({"type": "human", "content": text} for text in values["prompts"] if isinstance(text, str))
    else:
        for name in ("input", "output"):
            if isinstance(values.get(name), (dict, list)):
                yield from _walk(values[name])


def plain_value(value: Any) -> Any:
    """The only text of inputs or outputs, else all of them."""
    if isinstance(value, dict):
        texts = [value[key] for key in _TEXT_KEYS if isinstance(value.get(key), str)]
        if texts and len(value) == 1:
            return texts[0]
    return value or None


def tool_call_of(run: dict[str, Any]) -> str | None:
    """The id of the call that the run of a tool answers, if it is stated."""
    results = [fields for fields in messages_in(run.get("outputs")) if fields["type"] == "tool"]
    stated = to_id(to_object(run.get("extra")).get("tool_call_id"))
    return stated or (to_id(results[0].get("tool_call_id")) if results else None)


def describe_model_call(run: dict[str, Any], message: Message, *, has_usage: bool) -> None:
    """Set the model and usage that the run of a model call states."""
    metadata, extra = metadata_of(run), to_object(run.get("extra"))
    parameters = to_object(extra.get("invocation_params"))
    names = (metadata.get("ls_model_name"), parameters.get("model"), parameters.get("model_name"))
    message.model = message.model or first_text(names)
    message.extra["run_id"] = str(run["id"])
    if has_usage:
        usage = message.usage or _usage(run)
        cost = to_cost(_as_number(run.get("total_cost")))
        message.usage = (usage or Usage()).model_copy(update={"cost": cost}) if cost else usage


def _usage(run: dict[str, Any]) -> Usage | None:
    outputs = to_object(run.get("outputs"))
    stated = (
        metadata_of(run).get("usage_metadata"),
        outputs.get("usage_metadata"),
        outputs.get("usage"),
        to_object(outputs.get("llm_output")).get("token_usage"),
    )
    for counts in stated:
        if usage := parse_usage(to_object(counts)):
            return usage
    details = to_object(run.get("prompt_token_details"))
    completion = to_object(run.get("completion_token_details"))
    usage = Usage(
        input_tokens=first_count(run, "prompt_tokens"),
        output_tokens=first_count(run, "completion_tokens"),
        total_tokens=first_count(run, "total_tokens"),
        cache_read_tokens=first_count(details, "cache_read"),
        cache_write_tokens=first_count(details, "cache_creation"),
        reasoning_tokens=first_count(completion, "reasoning"),
    )
    # LangSmith writes zeros where it knows no count.
    return usage if usage.total_tokens or usage.input_tokens or usage.output_tokens else None


def _as_number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return None


def finish_run(run: Run, trace: Trace) -> list[Any]:
    """Set what the root run states about the whole; return what was used."""
    root = trace.root
    start, end = parse_time(root.get("start_time")), parse_time(root.get("end_time"))
    run.created_at, run.finished_at = start or run.created_at, end or run.finished_at
    if start and end and end >= start:
        run.duration_s = (end - start).total_seconds()
    first = parse_time(root.get("first_token_time"))
    if first and start and first >= start:
        run.time_to_first_token_s = (first - start).total_seconds()
    error = to_text(root.get("error"))
    if error or root.get("status") == "error":
        run.status, run.error = "ERROR", error
    elif root.get("status") in ("pending", "interrupted"):
        run.status = "INTERRUPTED"
    providers = [metadata_of(item).get("ls_provider") for item in trace.runs]
    run.model_provider = first_text(providers)
    run.extra |= {key: root[key] for key in ("id", "name", "run_type", "tags") if root.get(key)}
    values = [str(start), str(end), str(first), run.status, run.error, run.model_provider, run.extra]
    return [*values, keep_scalars(metadata_of(root))]


def scores_of(trace: Trace) -> dict[str, float]:
    """The averages of the feedback on the root run."""
    stats = to_object(trace.root.get("feedback_stats"))
    averages = {name: to_object(value).get("avg") for name, value in stats.items()}
    return {name: float(v) for name, v in averages.items() if isinstance(v, (int, float)) and math.isfinite(v)}
