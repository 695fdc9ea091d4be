"""Spans, and their layout in OTLP/JSON: ``{"resourceSpans": [{"resource", "scopeSpans": [{"scope", "spans"}]}]}``."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kern_nb.ingest.importer import RECORD_ERRORS, MalformedRecord, error_text
from kern_nb.ingest.parsing.times import to_time, to_time_from_ns
from kern_nb.ingest.parsing.values import first_text, to_list, to_object

ERROR, OK = "ERROR", "OK"
_STATUS_CODES = {1: OK, 2: ERROR, "1": OK, "2": ERROR}
_ID_BYTES = (8, 16)
_MAX_DEPTH = 100


@dataclass(slots=True)
class Event:
    """An event of a span."""

    name: str
    attributes: dict[str, Any]
    time: datetime | None = None


@dataclass(slots=True, eq=False)
class Span:
    """A span with decoded attributes. ``status`` is OK, ERROR or None; ``line`` is that of its record."""

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

    def text(self, *names: str) -> str | None:
        """The first of these attributes that has a text."""
        return first_text(self.attributes.get(name) for name in names)

    @property
    def duration_s(self) -> float | None:
        """How long it took, if it has both times."""
        return (self.end - self.start).total_seconds() if self.start and self.end else None

    @property
    def failed(self) -> bool:
        """Whether its status is an error."""
        return self.status == ERROR

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
    spans = value.get("resourceSpans") if isinstance(value, dict) else None
    return isinstance(spans, list) and any(isinstance(v, dict) and _scopes(v) is not None for v in spans)


def _scopes(value: dict[str, Any]) -> list[Any] | None:
    scopes = value.get("scopeSpans", value.get("instrumentationLibrarySpans"))
    return scopes if isinstance(scopes, list) else None


def parse_otlp(document: dict[str, Any], line: int) -> Iterator[Span | str]:
    """Yield the spans of an export, and the reason for each one that is malformed."""
    resources = document["resourceSpans"]
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
    return new_span(
        line,
        ids=(span.get("traceId"), span.get("spanId"), span.get("parentSpanId")),
        name=span.get("name"),
        times=(span.get("startTimeUnixNano"), span.get("endTimeUnixNano")),
        attributes=_decode_attributes(span.get("attributes")),
        events=[
            Event(str(e.get("name")), _decode_attributes(e.get("attributes")), parse_time(e.get("timeUnixNano")))
            for e in to_list(span.get("events"))
            if isinstance(e, dict)
        ],
        status=(status.get("code"), status.get("message")),
        resource=resource,
        scope=scope,
    )


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
    if not isinstance(value, str) or not value.strip("0"):
        return None
    if value.endswith("="):
        try:
            raw = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return value
        if len(raw) in _ID_BYTES:
            return raw.hex()
    return value.removeprefix("0x")


def parse_time(value: Any) -> datetime | None:
    """A time in unix nanoseconds or ISO format; None if there is none."""
    return to_time_from_ns(value) or to_time(value)


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
