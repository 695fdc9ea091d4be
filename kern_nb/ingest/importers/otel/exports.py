"""The spans of a JSON value, in one of the layouts that `otel` reads beside OTLP/JSON.

* A list or a page of exports of OTLP/JSON,
* the spans of the OpenTelemetry SDK's console exporter and of Phoenix: ``{"name", "context": {"trace_id", ...}, ...}``,
  in a frame of Phoenix with the columns ``context.trace_id`` and ``attributes.llm.model_name``,
* rows of Logfire: ``{"trace_id", "span_id", "span_name", "start_timestamp", "attributes", ...}``, or its columns,
* observations of Langfuse: ``{"id", "traceId", "type", "startTime", ...}``, alone, as a page of its API, or in a trace.

Attributes of Langfuse become those of the GenAI conventions, so that one reader understands all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import islice, zip_longest
from typing import Any

from kern_nb.ingest.importer import RECORD_ERRORS, MalformedRecord, error_text
from kern_nb.ingest.importers.otel.spans import (
    ERROR,
    Event,
    Span,
    is_otlp,
    new_span,
    parse_otlp,
)
from kern_nb.ingest.parsing.times import parse_time
from kern_nb.ingest.parsing.values import (
    decode_json,
    first_count,
    sum_present,
    to_count,
    to_duration,
    to_list,
    to_number,
    to_object,
)

_LANGFUSE_TYPES = frozenset(
    {"GENERATION", "SPAN", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EMBEDDING", "EVALUATOR", "GUARDRAIL"}
)
_LANGFUSE_OPERATIONS = {"GENERATION": "chat", "AGENT": "invoke_agent", "TOOL": "execute_tool"}
_MAX_DEPTH = 20
_LOGFIRE_ERROR = 17
# Attributes whose values may be objects; others of an object are attributes of their own.
_OBJECTS = frozenset(
    {
        "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions",
        "gen_ai.tool.call.arguments", "gen_ai.tool.call.result", "input.value", "output.value", "tool_arguments",
        "tool_response", "pydantic_ai.all_messages",
    }
)  # fmt: skip
_INPUT = ("input", "promptTokens", "prompt_tokens", "input_tokens", "inputTokens")
_OUTPUT = ("output", "completionTokens", "completion_tokens", "output_tokens", "outputTokens")
_TOTAL = ("total", "totalTokens", "total_tokens")
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
            if is_otlp(item):
                yield from parse_otlp(item, line)
            elif _is_langfuse(item):
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
        if isinstance(value.get("columns"), list) and not isinstance(value.get("rows"), list):
            value = {"rows": _transpose(value["columns"])}
        for key in ("observations", "rows", "data"):
            if isinstance(value.get(key), list):
                value = value[key]
                break
    if isinstance(value, list) and depth < _MAX_DEPTH:
        for item in value:
            yield from _records(item, trace, depth + 1)
    elif isinstance(value, dict) and "traceId" not in value and trace.get("id"):
        yield {"traceId": trace["id"], **value}, trace
    else:
        yield value, trace


def _transpose(columns: list[Any]) -> list[dict[str, Any]]:
    """The rows of a table that is stored by columns, each with its name and values."""
    values = {str(c.get("name")): to_list(c.get("values")) for c in columns if isinstance(c, dict)}
    return [dict(zip(values, row, strict=True)) for row in zip_longest(*values.values())]


def _is_single(value: Any) -> bool:
    return isinstance(value, dict) and (_is_sdk(value) or _is_logfire(value) or _is_langfuse(value) or is_otlp(value))


def _is_sdk(value: dict[str, Any]) -> bool:
    context = _context(value)
    return isinstance(context, dict) and "trace_id" in context and "span_id" in context and "start_time" in value


def _context(value: dict[str, Any]) -> Any:
    return value.get("context") or {
        n: value[f"context.{n}"] for n in ("trace_id", "span_id") if f"context.{n}" in value
    }


def _is_logfire(value: dict[str, Any]) -> bool:
    return "trace_id" in value and "span_id" in value and "span_name" in value and "start_timestamp" in value


def _is_langfuse(value: dict[str, Any]) -> bool:
    kind = value.get("type")
    is_kind = isinstance(kind, str) and kind in _LANGFUSE_TYPES
    return is_kind and "id" in value and "traceId" in value and "startTime" in value


def _parse_sdk(item: dict[str, Any], line: int) -> Span:
    context, status = _context(item), item.get("status")
    code: Any = status.get("status_code") if isinstance(status, dict) else item.get("status_code", status)
    message = status.get("description") if isinstance(status, dict) else item.get("status_message")
    columns = {key[len(prefix) :]: v for key, v in item.items() if key.startswith(prefix := "attributes.")}
    attributes = _flatten(to_object(item.get("attributes")) | columns)
    if isinstance(item.get("span_kind"), str):
        attributes.setdefault("openinference.span.kind", item["span_kind"])
    return new_span(
        line,
        ids=(context["trace_id"], context["span_id"], item.get("parent_id")),
        name=item.get("name"),
        times=(parse_time(item.get("start_time")), parse_time(item.get("end_time"))),
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
    level = row.get("level")
    is_error = row.get("is_exception") is True or level in ("error", "fatal")
    is_error = is_error or (type(level) is int and level >= _LOGFIRE_ERROR)
    start, duration = parse_time(row["start_timestamp"]), to_duration(row.get("duration"))
    end = parse_time(row.get("end_timestamp"))
    if end is None and start is not None and duration is not None:
        end = start + timedelta(seconds=duration)
    resource = to_object(_decode_json(row.get("otel_resource_attributes")))
    names = {"service_name": "service.name", "deployment_environment": "deployment.environment.name"}
    resource = {names[key]: row[key] for key in names if isinstance(row.get(key), str)} | resource
    return new_span(
        line,
        ids=(row["trace_id"], row["span_id"], row.get("parent_span_id")),
        name=row["span_name"],
        times=(start, end),
        attributes=attributes,
        events=events,
        status=(row.get("otel_status_code") or (ERROR if is_error else None), row.get("otel_status_message")),
        resource=resource,
        scope={"name": row.get("otel_scope_name"), "version": row.get("otel_scope_version")},
    )


def _parse_langfuse(item: dict[str, Any], line: int, trace: dict[str, Any]) -> Span:
    start, first = parse_time(item["startTime"]), parse_time(item.get("completionStartTime"))
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
        "gen_ai.usage.cost": _langfuse_cost(item),
        "gen_ai.response.time_to_first_chunk": (first - start).total_seconds() if start and first else None,
        "langfuse.metadata": item.get("metadata"),
        **_langfuse_usage(to_object(item.get("usageDetails")) or to_object(item.get("usage"))),
    }
    resource = {f"langfuse.{key}": trace.get(key) for key in ("metadata", "tags", "version")}
    resource |= {"service.version": trace.get("release")}
    resource |= {"deployment.environment": trace.get("environment") or item.get("environment")}
    is_first = item.get("id") == next(
        (o.get("id") for o in to_list(trace.get("observations")) if isinstance(o, dict)), 0
    )
    events = []
    for score in [*to_list(item.get("scores")), *(to_list(trace.get("scores")) if is_first else ())]:
        if isinstance(score, dict):
            names = {"name": "gen_ai.evaluation.name", "value": "gen_ai.evaluation.score.value"}
            names |= {"stringValue": "gen_ai.evaluation.score.label", "comment": "gen_ai.evaluation.explanation"}
            event = {names[key]: value for key, value in score.items() if key in names and value is not None}
            events.append(Event("gen_ai.evaluation.result", event, parse_time(score.get("timestamp"))))
    return new_span(
        line,
        ids=(item["traceId"], item["id"], item.get("parentObservationId")),
        name=item.get("name"),
        times=(start, parse_time(item.get("endTime"))),
        attributes={key: value for key, value in attributes.items() if value not in (None, "", {}, [])},
        events=events,
        status=(ERROR if item.get("level") == ERROR else None, item.get("statusMessage")),
        resource={key: value for key, value in resource.items() if value not in (None, "", {}, [])},
        scope={"name": "langfuse"},
    )


def _langfuse_usage(details: dict[str, Any]) -> dict[str, Any]:
    """Counts as attributes: cached and other tokens are beside the input and the output, unless the total says no."""
    if details.get("unit") not in (None, "", "TOKENS"):
        return {}
    counts = {key: n for key, value in details.items() if (n := to_count(value)) is not None}
    total, main = first_count(counts, *_TOTAL), (first_count(counts, *_INPUT), first_count(counts, *_OUTPUT))
    parts = {key: n for key, n in counts.items() if key not in (*_INPUT, *_OUTPUT, *_TOTAL)}
    cached = {key: n for key, n in parts.items() if "cache" in key}
    read = sum_present(n for key, n in cached.items() if "read" in key or "cached" in key)
    write = sum_present(n for key, n in cached.items() if "creation" in key or "write" in key)
    inner = {key: n for key, n in parts.items() if "output" in key or "reasoning" in key}
    outer = {key: n for key, n in parts.items() if key not in inner and (key in cached or "input" in key)}
    if total is None or total != sum_present(main):
        main = sum_present((main[0], *outer.values())), sum_present((main[1], *inner.values()))
    return {f"llm.usage.{key}": n for key, n in counts.items()} | {
        "gen_ai.usage.input_tokens": main[0],
        "gen_ai.usage.output_tokens": main[1],
        "gen_ai.usage.cache_read.input_tokens": read,
        "gen_ai.usage.cache_creation.input_tokens": write,
        "gen_ai.usage.reasoning_tokens": sum_present(n for key, n in inner.items() if "reasoning" in key),
    }


def _langfuse_cost(item: dict[str, Any]) -> float | None:
    """The cost of a generation: the total, else the sum of its parts."""
    costs = to_object(item.get("costDetails"))
    total = next((n for v in (costs.get("total"), item.get("calculatedTotalCost")) if (n := to_number(v))), None)
    return total or sum_present(to_number(value) for key, value in costs.items() if key != "total")


def _flatten(attributes: dict[str, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Attributes with dotted names; Phoenix exports them as nested objects."""
    flat: dict[str, Any] = {}
    for key, value in attributes.items():
        name = f"{prefix}{key}"
        is_list = isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)
        if name not in _OBJECTS and (isinstance(value, dict) or is_list) and depth < _MAX_DEPTH:
            items = value if isinstance(value, dict) else {str(i): item for i, item in enumerate(value)}
            flat |= _flatten(items, f"{name}.", depth + 1)
        else:
            flat[name] = value
    return flat


def _decode_json(value: Any) -> Any:
    """An object or a list from its JSON; another text is a text, even if it is JSON."""
    return decode_json(value) if isinstance(value, str) and value[:1] in ("{", "[") else value
