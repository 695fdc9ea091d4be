"""LangChain's messages saved as JSON, and runs exported from LangSmith.

Messages: a list (`messages_to_dict`, `FileChatMessageHistory`, `dumps`), an object with ``messages``, also as the
``values`` of a LangGraph thread, or one message per line. A conversation is a session, split into runs by its prompts.
The layouts have no times. Constructors are read as the values that they hold; nothing is constructed.

Runs: one per line, or a list, also with the runs below them; see `langsmith`. A tool that calls models is a nested
agent: its runs are members of the run that called it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kern_nb.ingest.importer import RECORD_ERRORS, Draft, Importer, MalformedRecord, Membership, error_text, hash_record
from kern_nb.ingest.importers.langchain.langsmith import Conversation, finish_run, scores_of, tool_call_of
from kern_nb.ingest.importers.langchain.messages import REMOVE, fields_of, parse_message, provider_of
from kern_nb.ingest.importers.langchain.traces import (
    Trace,
    flatten,
    group_traces,
    is_run,
    metadata_of,
    require_run,
)
from kern_nb.ingest.parsing.times import parse_time, to_unix_seconds
from kern_nb.ingest.parsing.values import drop_null, keep_scalars, to_id, to_list, to_object, to_text
from kern_nb.ingest.run_splitter import SourceMessage, build_runs, split_runs
from kern_nb.ingest.source import Source, Value
from kern_nb.ingest_report import Problem
from kern_nb.records import Message, Session

NAME = "langchain"

_IDS = ("thread_id", "session_id", "conversation_id", "id")
_OWN_TYPES = ("human", "ai")


class LangChain(Importer):
    """Messages of LangChain and runs of LangSmith."""

    name = NAME
    reads = "messages of LangChain as JSON, and runs exported from LangSmith"

    def recognizes(self, source: Source) -> bool:
        """A message in LangChain's own layout, a list or object with some, or a run."""
        return any(is_run(value) or _is_own(value) or any(map(is_run, _list_of_runs(value))) for value in source.head)

    def read(self, source: Source) -> Iterator[Draft | Problem]:
        """Yield a draft per conversation; those of runs, and that of the single messages, come last."""
        single: list[Value] = []
        runs: list[tuple[int, dict[str, Any]]] = []
        count = 0
        for item in source.values():
            if isinstance(item, Problem):
                yield item
                continue
            try:
                values = _list_of_runs(item.value) or ([item.value] if is_run(item.value) else [])
                if values:
                    for run in (run for value in values if is_run(value) for run in flatten(value)):
                        try:
                            runs += [(item.line, require_run(run))] if is_run(run) else []
                        except RECORD_ERRORS as error:
                            yield Problem(source.name, item.line, f"The run is not imported: {error_text(error)}.")
                elif fields_of(item.value) is not None:
                    _parse(item.value)
                    single.append(item)
                else:
                    for conversation in _conversations(item.value):
                        count += 1
                        yield from _drafts(source, item.line, count, conversation)
            except RECORD_ERRORS as error:
                yield Problem(source.name, item.line, f"The record is not imported: {error_text(error)}.")
        if single:
            yield from _drafts(source, single[0].line, 1, {"messages": [item.value for item in single]})
        yield from _read_runs(source, runs)


def _list_of_runs(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else to_list(to_object(value).get("runs"))
    return values if any(map(is_run, values)) else []


def _is_own(value: Any) -> bool:
    """Whether a value has a message in a layout that no other program uses."""
    if isinstance(value, list):
        return any(_is_own(item) for item in value[:5])
    fields = fields_of(value)
    if fields is not None:
        is_constructor = isinstance(value.get("lc"), int)
        is_nested = isinstance(value.get("data"), dict) and value.get("type") in ("human", "ai", "system", "tool")
        return is_constructor or is_nested or (value.get("type") in _OWN_TYPES and "content" in value)
    messages = _messages_of(value)
    return messages is not None and _is_own(messages)


def _messages_of(value: Any) -> list[Any] | None:
    """The messages of an object: of a history, a prompt value, a state."""
    fields = to_object(value)
    if isinstance(fields.get("lc"), int):
        fields = to_object(fields.get("kwargs"))
    for holder in (fields, to_object(fields.get("values")), to_object(fields.get("channel_values"))):
        if isinstance(holder.get("messages"), list):
            return to_list(holder["messages"])
    return None


def _conversations(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        messages = _messages_of(value)
        if messages is None:
            raise MalformedRecord("it has no messages")
        return [{**value, "messages": messages}]
    if not isinstance(value, list):
        raise MalformedRecord("it must be a message, or an object or list with messages")
    if any(fields_of(item) is not None for item in value):
        return [{"messages": value}]
    return [conversation for item in value for conversation in _conversations(item)]


def _parse(value: Any) -> SourceMessage:
    fields = fields_of(value)
    if fields is None:
        raise MalformedRecord("a message must have a type and a content")
    message = parse_message(fields)
    return SourceMessage(message, fields)


def _drafts(source: Source, line: int, position: int, record: dict[str, Any]) -> Iterator[Draft | Problem]:
    """The draft of a conversation, and a problem for each message that is none."""
    own = {"messages", "values", "channel_values", "kwargs"} | ({"lc", "type", "id"} if "lc" in record else set())
    fields = {key: value for key, value in record.items() if key not in own}
    config = to_object(to_object(fields.get("config")).get("configurable")) | to_object(fields.get("metadata"))
    ids = [to_id(fields.get(key)) or to_id(config.get(key)) for key in _IDS]
    stem = source.session_name
    session_id = next((i for i in ids if i), stem if position == 1 else f"{stem}-{position}")
    messages: list[SourceMessage] = []
    for index, value in enumerate(record["messages"]):
        try:
            if to_object(fields_of(value)).get("type") != REMOVE:
                messages.append(_parse(value))
        except RECORD_ERRORS as error:
            reason = f"Message {index} of session {session_id!r} is not imported: {error_text(error)}."
            yield Problem(source.name, line, reason)
    if messages and all(item.message.message_id for item in messages):
        messages = [
            item._replace(key=f"{item.message.message_id}:{hash_record(item.record)[:12]}") for item in messages
        ]
    runs, hashes, keys = split_runs(session_id, messages)
    for run in runs:
        run.model_provider = next((p for m in reversed(run.messages) if (p := provider_of(m))), None)
    is_thread = "updated_at" in fields  # else it is a state, and its time that of a checkpoint
    times = [
        to_unix_seconds(parse_time(fields.get(key))) if is_thread else None for key in ("created_at", "updated_at")
    ]
    session = Session(
        session_id=session_id,
        agent_id=NAME,
        metadata={"file": source.name, "line": line, **keep_scalars(fields), **keep_scalars(config)},
        created_at=times[0],
        updated_at=times[1],
    )
    yield Draft(
        file=source.name,
        line=lambda: line,
        session=session,
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(fields),
        source=NAME,
        has_record_ids=bool(messages) and messages[0].key is not None,
    )


def _read_runs(source: Source, runs: list[tuple[int, dict[str, Any]]]) -> Iterator[Draft | Problem]:
    conversations: dict[str, list[Trace]] = {}
    for trace in group_traces(runs):
        conversations.setdefault(trace.conversation_id, []).append(trace)
    for session_id, traces in conversations.items():
        yield from _read_traces(source, session_id, traces, None)
        for agent in (agent for trace in traces for agent in trace.nested):
            tool = agent.tool or agent.root
            parent_id = f"{session_id}/{agent.parent_id}" if agent.parent_id else session_id
            membership = Membership(parent_id, tool_call_of(tool))
            yield from _read_traces(source, f"{session_id}/{to_id(tool['id'])}", [agent], membership)


def _read_traces(
    source: Source, session_id: str, traces: list[Trace], membership: Membership | None
) -> Iterator[Draft | Problem]:
    conversation = Conversation()
    groups: list[list[SourceMessage]] = []
    imported: list[Trace] = []
    for trace in traces:
        said = list(conversation.said)
        try:
            groups.append(_source_messages(trace, conversation.add(trace)))
            imported.append(trace)
        except RECORD_ERRORS as error:
            conversation.said = said
            reason = f"Trace {trace.root['id']!r} is not imported: {error_text(error)}."
            yield Problem(source.name, trace.line, reason)
        yield from (Problem(source.name, trace.line, reason) for reason in conversation.problems)
        conversation.problems.clear()
    if imported:
        draft = _runs_draft(source, session_id, imported, groups)
        draft.membership = membership
        yield draft


def _source_messages(trace: Trace, messages: list[Message]) -> list[SourceMessage]:
    """The messages of a trace; its prompt is the user's that nothing but instructions precedes."""
    first = next((i for i, m in enumerate(messages) if m.role not in ("system", "developer")), None)
    items = []
    for index, message in enumerate(messages):
        calls = [(call.tool_call_id, call.tool_name, call.args) for call in message.tool_calls]
        usage = message.usage.model_dump() if message.usage else None
        record = [message.role, message.content, message.tool_call_id, message.is_error, message.model, usage, calls]
        is_prompt = message.role == "user" and index == first
        items.append(SourceMessage(message, record, f"{trace.root['id']}:{index}", is_prompt))
    return items


def _runs_draft(source: Source, session_id: str, traces: list[Trace], groups: list[list[SourceMessage]]) -> Draft:
    runs, hashes, keys = build_runs(session_id, groups)
    metadata: dict[str, Any] = {}
    scores: dict[str, float] = {}
    for index, (run, trace) in enumerate(zip(runs, traces, strict=True)):
        hashes[index] = hash_record(hashes[index], *finish_run(run, trace))
        metadata |= keep_scalars(metadata_of(trace.root))
        metadata |= {"project": to_text(trace.root.get("session_name")) or to_id(trace.root.get("session_id"))}
        scores |= scores_of(trace)
    metadata = drop_null(metadata)
    starts = [run.created_at for run in runs if run.created_at]
    ends = [run.finished_at for run in runs if run.finished_at]
    session = Session(
        session_id=session_id,
        agent_id=to_text(traces[0].root.get("name")) or NAME,
        user_id=to_text(metadata.get("user_id")),
        metadata=metadata,
        created_at=to_unix_seconds(min(starts, default=None)),
        updated_at=to_unix_seconds(max(ends, default=None)),
    )
    line = traces[0].line
    return Draft(
        file=source.name,
        line=lambda: line,
        session=session,
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(metadata),
        source=NAME,
        scores=scores,
        has_record_ids=True,
    )
