"""Requests of OTLP over HTTP and the answers to them: JSON or protobuf, plain or compressed.

See https://opentelemetry.io/docs/specs/otlp/#otlphttp. An answer is in the encoding of its request.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

JSON = "application/json"
PROTOBUF = "application/x-protobuf"
TRACES, LOGS = "/v1/traces", "/v1/logs"

_AUTO_WINDOW = 47  # zlib detects gzip and zlib
_INVALID_ARGUMENT, _UNAVAILABLE, _INTERNAL = 3, 14, 13
_CODES = {503: _UNAVAILABLE, 500: _INTERNAL}
_VARINT_BYTE = 0x80


class BadRequest(Exception):
    """A request that is refused; `status` is that of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """An answer: its status, its body and the type of it."""

    status: int
    body: bytes
    content_type: str
    retry_after_s: int | None = None


def decompress(data: bytes, encoding: str, limit: int) -> bytes:
    """The content of a body; raises BadRequest if it is damaged, or larger than the limit."""
    if encoding in ("", "identity"):
        return data
    if encoding not in ("gzip", "deflate"):
        raise BadRequest(415, f"The Content-Encoding {encoding!r} is not supported: send gzip, deflate or none.")
    decoder = zlib.decompressobj(_AUTO_WINDOW)
    try:
        content = decoder.decompress(data, limit + 1)
    except zlib.error as error:
        raise BadRequest(400, f"The body is not {encoding}: {error}.") from error
    if len(content) > limit:
        raise too_large(limit)
    if not decoder.eof:
        raise BadRequest(400, f"The body is not complete {encoding}.")
    return content


def too_large(limit: int) -> BadRequest:
    """The refusal of a body that is too large."""
    return BadRequest(413, f"The body is larger than {limit:,} bytes: send fewer spans at once.")


def decode(path: str, content_type: str, content: bytes) -> dict[str, Any]:
    """The export as JSON; raises BadRequest for another body."""
    if content_type == JSON:
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise BadRequest(400, f"The body is not JSON: {error}.") from error
        name = "resourceSpans" if path == TRACES else "resourceLogs"
        if not isinstance(document, dict):
            raise BadRequest(400, f"The body must be an object with {name!r}.")
        return {name: [], **document}
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import DecodeError

    message = _request_type(path)()
    try:
        message.ParseFromString(content)
        document = MessageToDict(message)
    except (DecodeError, ValueError, RecursionError) as error:
        raise BadRequest(400, f"The body is not an OTLP request: {error}.") from error
    return {"resourceSpans" if path == TRACES else "resourceLogs": [], **document}


def _request_type(path: str) -> Any:
    if path == TRACES:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        return ExportTraceServiceRequest
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    return ExportLogsServiceRequest


def success(path: str, content_type: str, rejected: int = 0, reason: str = "") -> Answer:
    """The answer to an export that is stored, or a part of it."""
    counted = "rejectedSpans" if path == TRACES else "rejectedLogRecords"
    if content_type == JSON:
        partial = {"partialSuccess": {counted: str(rejected), "errorMessage": reason}} if reason else {}
        return Answer(200, json.dumps(partial).encode(), JSON)
    partial_body = (b"\x08" + _varint(rejected) if rejected else b"") + _text_field(2, reason)
    return Answer(200, b"\x0a" + _varint(len(partial_body)) + partial_body if reason else b"", PROTOBUF)


def failure(status: int, message: str, content_type: str, retry_after_s: int | None = None) -> Answer:
    """The answer to an export that is not stored: a `google.rpc.Status`."""
    code = _CODES.get(status, _INVALID_ARGUMENT)
    if content_type == PROTOBUF:
        return Answer(status, b"\x08" + _varint(code) + _text_field(2, message), PROTOBUF, retry_after_s)
    return Answer(status, json.dumps({"code": code, "message": message}).encode(), JSON, retry_after_s)


def _text_field(number: int, text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return bytes([number << 3 | 2]) + _varint(len(data)) + data if data else b""


def _varint(value: int) -> bytes:
    data = bytearray()
    while value >= _VARINT_BYTE:
        data.append(value & (_VARINT_BYTE - 1) | _VARINT_BYTE)
        value >>= 7
    return bytes([*data, value])
