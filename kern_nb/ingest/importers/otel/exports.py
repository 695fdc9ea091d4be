"""The spans of a JSON value, in one of the layouts that `otel` reads beside OTLP/JSON.

* The spans of the OpenTelemetry SDK's console exporter and of Phoenix: ``{"name", "context": {"trace_id", ...}, ...}``,
* rows of Logfire: ``{"trace_id", "span_id", "span_name", "start_timestamp", "attributes", ...}``,
* observations of Langfuse: ``{"id", "traceId", "type", "startTime", ...}``, alone, as a page of its API, or in a trace.

Attributes of Langfuse become those of the GenAI conventions, so that one reader understands all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from kern_nb.ingest.importer import RECORD_ERRORS, MalformedRecord, error_text
from kern_nb.ingest.importers.otel.spans import (
    ERROR,
    Event,
    Span,
    is_otlp,
    new_span,
    parse_otlp,
    parse_time,
)
from kern_nb.ingest.parsing.values import decode_json, to_list, to_object

_LANGFUSE_TYPES = frozenset(
    {"GENERATION", "SPAN", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EMBEDDING", "EVALUATOR", "GUARDRAIL"}
)
_LANGFUSE_OPERATIONS = {"GENERATION": "chat", "AGENT": "invoke_agent", "TOOL": "execute_tool"}
_MAX_DEPTH = 20
_PROBED_RECORDS = 20


def is_span_record(value: Any) -> bool:
    """Whether a JSON value has spans in one of the layouts."""
    return is_otlp(value) or any(_is_single(item) for item, _ in islice(_records(value, {}), _PROBED_RECORDS))


def parse_spans(value: Any, line: int) -> Iterator[Span | str]:
    """Yield the spans of a JSON value, and the reason for each one that is malformed."""
    if isinstance(value, dict) and "resourceSpans" in value:
        yield from parse_otlp(value, line)
        return
    for item, trace in _records(value, {}):
        try:
            if not isinstance(item, dict):
                raise MalformedRecord("it is not an object")
            if _is_langfuse(item):
                yield _parse_langfuse(item, line, trace)
            elif _is_sdk(item):
                yield _parse_sdk(item, line)
            elif not _is_logfire(item):
                raise MalformedRecord("it has no trace and span id")
            elif item.get("kind") != "pending_span":
                yield _parse_logfire(item, line)
        except RECORD_ERRORS as error:
            yield f"The span is not imported: {error_text(error)}."


def _records(value: Any, trace: dict[str, Any], depth: int = 0) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The records of a list, of a page of an API, and of a trace of Langfuse; the latter with their trace."""
    if isinstance(value, dict) and not _is_single(value):
        if isinstance(value.get("observations"), list):
            trace = value
        for key in ("observations", "rows", "data"):
            if isinstance(value.get(key), list):
                value = value[key]
                break
    if isinstance(value, list) and depth < _MAX_DEPTH:
        for item in value:
            yield from _records(item, trace, depth + 1)
    else:
        yield value, trace


def _is_single(value: Any) -> bool:
    return isinstance(value, dict) and (_is_sdk(value) or _is_logfire(value) or _is_langfuse(value))


def _is_sdk(value: dict[str, Any]) -> bool:
    context = value.get("context")
    return isinstance(context, dict) and "trace_id" in context and "span_id" in context and "start_time" in value


def _is_logfire(value: dict[str, Any]) -> bool:
    return "trace_id" in value and "span_id" in value and "span_name" in value and "start_timestamp" in value


def _is_langfuse(value: dict[str, Any]) -> bool:
    kind = value.get("type")
    is_kind = isinstance(kind, str) and kind in _LANGFUSE_TYPES
    return is_kind and "id" in value and "traceId" in value and "startTime" in value


def _parse_sdk(item: dict[str, Any], line: int) -> Span:
    context, status = item["context"], item.get("status")
    code: Any = status.get("status_code") if isinstance(status, dict) else item.get("status_code", status)
    message = status.get("description") if isinstance(status, dict) else item.get("status_message")
    attributes = _flatten(to_object(item.get("attributes")))
    if isinstance(item.get("span_kind"), str):
        attributes.setdefault("openinference.span.kind", item["span_kind"])
    return new_span(
        line,
        ids=(context["trace_id"], context["span_id"], item.get("parent_id")),
        name=item.get("name"),
        times=(item.get("start_time"), item.get("end_time")),
        attributes=attributes,
        events=[
            Event(str(e.get("name")), _flatten(to_object(e.get("attributes"))), parse_time(e.get("timestamp")))
            for e in to_list(item.get("events"))
            if isinstance(e, dict)
        ],
        status=(code, message),
        resource=to_object(to_object(item.get("resource")).get("attributes")),
        scope=to_object(item.get("instrumentation_scope")),
    )


def _parse_logfire(row: dict[str, Any], line: int) -> Span:
    attributes = to_object(_decode_json(row.get("attributes")))
    events = [
        Event(str(e.get("event_name", e.get("name"))), to_object(e.get("attributes")), parse_time(e.get("timestamp")))
        for e in to_list(_decode_json(row.get("otel_events")))
        if isinstance(e, dict)
    ]
    if isinstance(row.get("exception_message"), str) and not any(e.name == "exception" for e in events):
        names = {"exception.message": row["exception_message"], "exception.type": row.get("exception_type")}
        events.append(Event("exception", names))
    is_error = row.get("is_exception") is True or row.get("level") in ("error", "fatal")
    return new_span(
        line,
        ids=(row["trace_id"], row["span_id"], row.get("parent_span_id")),
        name=row["span_name"],
        times=(row["start_timestamp"], row.get("end_timestamp")),
        attributes=attributes,
        events=events,
        status=(row.get("otel_status_code") or (ERROR if is_error else None), row.get("otel_status_message")),
        resource={"service.name": row["service_name"]} if isinstance(row.get("service_name"), str) else {},
        scope={"name": row.get("otel_scope_name"), "version": row.get("otel_scope_version")},
    )


def _parse_langfuse(item: dict[str, Any], line: int, trace: dict[str, Any]) -> Span:
    details, costs = to_object(item.get("usageDetails") or item.get("usage")), to_object(item.get("costDetails"))
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": _LANGFUSE_OPERATIONS.get(item["type"], item["type"].lower()),
        "gen_ai.request.model": item.get("model"),
        "gen_ai.tool.name": item.get("name") if item["type"] == "TOOL" else None,
        "gen_ai.agent.name": item.get("name") if item["type"] == "AGENT" else None,
        "session.id": item.get("sessionId") or trace.get("sessionId"),
        "user.id": item.get("userId") or trace.get("userId"),
        "trace.name": trace.get("name"),
        "input.value": _decode_json(item.get("input")),
        "output.value": _decode_json(item.get("output")),
        "gen_ai.usage.input_tokens": _sum(details, "input"),
        "gen_ai.usage.output_tokens": _sum(details, "output"),
        "gen_ai.usage.cache_read.input_tokens": _first(details, "cache_read_input_tokens", "input_cached_tokens"),
        "gen_ai.usage.cache_creation.input_tokens": _first(
            details, "cache_creation_input_tokens", "input_cache_creation"
        ),
        "gen_ai.usage.reasoning_tokens": _first(details, "output_reasoning_tokens", "output_reasoning"),
        "gen_ai.usage.cost": costs.get("total", item.get("calculatedTotalCost")),
        "langfuse.metadata": item.get("metadata"),
    }
    events = []
    for score in [*to_list(item.get("scores")), *to_list(trace.get("scores"))]:
        if isinstance(score, dict):
            names = {"name": "gen_ai.evaluation.name", "value": "gen_ai.evaluation.score.value"}
            names |= {"stringValue": "gen_ai.evaluation.score.label", "comment": "gen_ai.evaluation.explanation"}
            event = {names[key]: value for key, value in score.items() if key in names and value is not None}
            events.append(Event("gen_ai.evaluation.result", event, parse_time(score.get("timestamp"))))
    return new_span(
        line,
        ids=(item["traceId"], item["id"], item.get("parentObservationId")),
        name=item.get("name"),
        times=(item["startTime"], item.get("endTime")),
        attributes={key: value for key, value in attributes.items() if value not in (None, "", {}, [])},
        events=events,
        status=(ERROR if item.get("level") == ERROR else None, item.get("statusMessage")),
        resource={},
        scope={"name": "langfuse"},
    )


def _sum(details: dict[str, Any], word: str) -> int | None:
    """The parts of a count: Langfuse lists cached tokens beside the other ones."""
    values = [v for k, v in details.items() if word in k and type(v) is int]
    return sum(values) if values else None


def _first(details: dict[str, Any], *names: str) -> Any:
    return next((details[name] for name in names if details.get(name) is not None), None)


def _flatten(attributes: dict[str, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Attributes with dotted names; Phoenix exports them as nested objects."""
    flat: dict[str, Any] = {}
    for key, value in attributes.items():
        name = f"{prefix}{key}"
        is_list = isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)
        if (isinstance(value, dict) or is_list) and depth < _MAX_DEPTH:
            items = value if isinstance(value, dict) else {str(i): item for i, item in enumerate(value)}
            flat |= _flatten(items, f"{name}.", depth + 1)
        else:
            flat[name] = value
    return flat


def _decode_json(value: Any) -> Any:
    """An object or a list from its JSON; another text is a text, even if it is JSON."""
    return decode_json(value) if isinstance(value, str) and value[:1] in ("{", "[") else value
