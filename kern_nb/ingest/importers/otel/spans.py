"""Spans, and their layout in OTLP/JSON: ``{"resourceSpans": [{"resource", "scopeSpans": [{"scope", "spans"}]}]}``.

Names may be in snake case. Tempo calls the outer list ``batches`` or has the export in ``trace``; some tools write each
of the resources, or each span, alone. Messages and evaluations may be log records of a span:
``{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"traceId", "spanId", "eventName", "attributes", "body"}]}]}]}``.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kern_nb.ingest.importer import RECORD_ERRORS, MalformedRecord, error_text
from kern_nb.ingest.parsing.times import to_time, to_time_from_ns
from kern_nb.ingest.parsing.values import first_text, to_id, to_list, to_object

ERROR, OK = "ERROR", "OK"
_STATUS_CODES = {1: OK, 2: ERROR, "1": OK, "2": ERROR}
_ID_BYTES = (8, 16)
_HEX_ID = re.compile(r"(0x)?[0-9a-fA-F]+")
_RESOURCES = ("resourceSpans", "resource_spans", "batches")
_SCOPES = ("scopeSpans", "scope_spans", "instrumentationLibrarySpans")
_MAX_DEPTH = 100
_REMOTE_PARENT = 0x200  # of the flags of a span


@dataclass(slots=True)
class Event:
    """An event of a span."""

    name: str
    attributes: dict[str, Any]
    time: datetime | None = None


@dataclass(slots=True, eq=False)
class Span:
    """A span with decoded attributes.

    ``status`` is OK, ERROR or None; ``line`` is that of its record; ``has_remote_parent`` says that its parent is in
    another process.
    """

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    line: int
    start: datetime | None = None
    end: datetime | None = None
    start_ns: int = 0
    attributes: dict[str, Any] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    status: str | None = None
    status_message: str | None = None
    resource: dict[str, Any] = field(default_factory=dict)
    scope: dict[str, Any] = field(default_factory=dict)
    has_remote_parent: bool = False

    def text(self, *names: str) -> str | None:
        """The first of these attributes that has a text."""
        return first_text(self.attributes.get(name) for name in names)

    def identity(self, *names: str) -> str | None:
        """The first of these attributes that has an id, which may be a number."""
        return next((text for name in names if (text := to_id(self.attributes.get(name)))), None)

    @property
    def duration_s(self) -> float | None:
        """How long it took, if it has both times."""
        return (self.end - self.start).total_seconds() if self.start and self.end else None

    @property
    def failed(self) -> bool:
        """Whether its status is an error, or it has no status and states the type of an error."""
        return self.status == ERROR or (self.status is None and self.text("error.type") is not None)

    @property
    def error(self) -> str | None:
        """What failed: the exception's message, else the status's, else the type of the error."""
        events = [event.attributes for event in self.events if event.name == "exception"]
        values = [event.get("exception.message") for event in events] + [self.status_message]
        values += [self.attributes.get("error.type")] + [event.get("exception.type") for event in events]
        return first_text(values)

    @property
    def is_cancelled(self) -> bool:
        """Whether it ended because it was cancelled."""
        kinds = [e.attributes.get("exception.type") for e in self.events] + [self.attributes.get("error.type")]
        return any(isinstance(k, str) and k.endswith(("CancelledError", "KeyboardInterrupt")) for k in kinds)


def is_otlp(value: Any) -> bool:
    """Whether a JSON value is an export of spans."""
    resources = _resources(value)
    return isinstance(resources, list) and any(isinstance(v, dict) and _scopes(v) is not None for v in resources)


def _resources(value: Any) -> Any:
    """The list of resources in an export, whatever it is wrapped in; None if the value is none."""
    if not isinstance(value, dict):
        return None
    for export in (value, to_object(value.get("trace") if "messages" not in value else None)):
        for name in _RESOURCES:
            if name in export:
                return export[name]
    if _scopes(value) is not None:
        return [value]
    if _field(value, "traceId") and _field(value, "spanId") and _field(value, "startTimeUnixNano"):
        return [{"resource": value.get("resource"), "scopeSpans": [{"scope": value.get("scope"), "spans": [value]}]}]
    return None


def _scopes(value: dict[str, Any]) -> list[Any] | None:
    scopes = next((value[name] for name in _SCOPES if name in value), None)
    return scopes if isinstance(scopes, list) else None


def _field(record: dict[str, Any], name: str) -> Any:
    """A field by its name in camel case or in snake case."""
    return record[name] if name in record else record.get(re.sub("[A-Z]", lambda m: f"_{m[0].lower()}", name))


def parse_otlp(document: dict[str, Any], line: int) -> Iterator[Span | str]:
    """Yield the spans of an export, and the reason for each one that is malformed."""
    resources = _resources(document)
    for resource_spans in resources if isinstance(resources, list) else [resources]:
        scopes = _scopes(resource_spans) if isinstance(resource_spans, dict) else None
        if scopes is None:
            yield "An item of 'resourceSpans' has no list 'scopeSpans'."
            continue
        resource = _decode_attributes(to_object(resource_spans.get("resource")).get("attributes"))
        for scope_spans in scopes:
            spans = scope_spans.get("spans") if isinstance(scope_spans, dict) else None
            if not isinstance(spans, list):
                yield "An item of 'scopeSpans' has no list 'spans'."
                continue
            scope = to_object(scope_spans.get("scope", scope_spans.get("instrumentationLibrary")))
            for span in spans:
                try:
                    yield _parse_otlp_span(span, line, resource, scope)
                except RECORD_ERRORS as error:
                    yield f"The span is not imported: {error_text(error)}."


def _parse_otlp_span(span: Any, line: int, resource: dict[str, Any], scope: dict[str, Any]) -> Span:
    if not isinstance(span, dict):
        raise MalformedRecord("it is not an object")
    status = to_object(span.get("status"))
    events = [
        Event(str(e.get("name")), _decode_attributes(e.get("attributes")), parse_time(_field(e, "timeUnixNano")))
        for e in to_list(span.get("events"))
        if isinstance(e, dict)
    ]
    flags = span.get("flags")
    result = new_span(
        line,
        ids=(_field(span, "traceId"), _field(span, "spanId"), _field(span, "parentSpanId")),
        name=span.get("name"),
        times=(_field(span, "startTimeUnixNano"), _field(span, "endTimeUnixNano")),
        attributes=_decode_attributes(span.get("attributes")),
        events=events,
        status=(status.get("code"), status.get("message")),
        resource=resource,
        scope=scope,
    )
    result.has_remote_parent = isinstance(flags, int) and bool(flags & _REMOTE_PARENT)
    return result


def parse_logs(document: Any) -> Iterator[tuple[str, str, Event]]:
    """Yield the events of spans that an export of log records has, with the ids of the trace and the span."""
    for resource in to_list(_field(to_object(document), "resourceLogs")):
        for scope in to_list(_field(to_object(resource), "scopeLogs")):
            for record in to_list(_field(to_object(scope), "logRecords")):
                if not isinstance(record, dict):
                    continue
                trace_id, span_id = _parse_id(_field(record, "traceId")), _parse_id(_field(record, "spanId"))
                attributes = _decode_attributes(record.get("attributes"))
                name = _field(record, "eventName") or attributes.get("event.name")
                if trace_id and span_id and isinstance(name, str):
                    body = to_object(_decode_value(record.get("body")))
                    yield trace_id, span_id, Event(name, attributes | body, parse_time(_field(record, "timeUnixNano")))


def new_span(
    line: int,
    *,
    ids: tuple[Any, Any, Any],
    name: Any,
    times: tuple[Any, Any],
    attributes: dict[str, Any],
    events: list[Event],
    status: tuple[Any, Any],
    resource: dict[str, Any],
    scope: dict[str, Any],
) -> Span:
    """A span of undecoded ids, times and status; raises MalformedRecord without the ids."""
    trace_id, span_id, parent_id = (_parse_id(value) for value in ids)
    if trace_id is None or span_id is None:
        raise MalformedRecord("it has no trace and span id")
    code, message = status
    code = _STATUS_CODES.get(code) if isinstance(code, (int, str)) and code in _STATUS_CODES else code
    code = code.rpartition("_")[2].upper() if isinstance(code, str) else None
    start = parse_time(times[0])
    return Span(
        trace_id,
        span_id,
        parent_id if parent_id != span_id else None,
        name if isinstance(name, str) else "",
        line,
        start,
        parse_time(times[1]),
        _to_ns(times[0], start),
        attributes,
        events,
        code if code in (OK, ERROR) else None,
        message if isinstance(message, str) and message else None,
        resource,
        scope,
    )


def _parse_id(value: Any) -> str | None:
    """An id as hex; some writers encode its bytes as base64. An id of zeros is none."""
    text = to_id(value)
    if text is None or not text.removeprefix("0x").strip("0"):
        return None
    if text.endswith("="):
        try:
            raw = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return text
        if len(raw) in _ID_BYTES:
            return raw.hex()
    return text.removeprefix("0x").lower() if _HEX_ID.fullmatch(text) else text


def parse_time(value: Any) -> datetime | None:
    """A time in unix nanoseconds or ISO format; None if there is none."""
    return value if isinstance(value, datetime) else to_time_from_ns(value) or to_time(value)


def _to_ns(value: Any, time: datetime | None) -> int:
    """The start in nanoseconds, for the order of spans."""
    if time is None:
        return 0
    if isinstance(value, (str, int)) and str(value).isdigit():
        return int(value)
    return int(time.timestamp() * 1_000_000) * 1000


def _decode_attributes(value: Any) -> dict[str, Any]:
    items = (item for item in to_list(value) if isinstance(item, dict) and isinstance(item.get("key"), str))
    return {item["key"]: _decode_value(item.get("value")) for item in items}


def _decode_value(value: Any, depth: int = 0) -> Any:
    """The value of an attribute: an object with its type as the key."""
    if not isinstance(value, dict) or not value or depth > _MAX_DEPTH:
        return None
    kind, content = next(iter(value.items()))
    kind = kind.replace("_v", "V")  # snake case
    if kind == "arrayValue":
        return [_decode_value(item, depth + 1) for item in to_list(to_object(content).get("values"))]
    if kind == "kvlistValue":
        items = (i for i in to_list(to_object(content).get("values")) if isinstance(i, dict))
        return {str(item.get("key")): _decode_value(item.get("value"), depth + 1) for item in items}
    if kind == "intValue" and isinstance(content, str):
        try:
            return int(content)
        except ValueError:
            return content
    return content
