"""The ASGI application of `listen`: it takes OTLP over HTTP, and hands the spans to a `TraceRecorder`."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from kern_nb.bridges.otel.recorder import TraceRecorder
from kern_nb.bridges.otel.requests import (
    JSON,
    LOGS,
    PROTOBUF,
    TRACES,
    Answer,
    BadRequest,
    decode,
    decompress,
    failure,
    success,
    too_large,
)
from kern_nb.errors import KernError, StoreBusy, StoreUnavailable
from kern_nb.ingest.importers.otel.spans import Span, parse_logs, parse_otlp

_log = logging.getLogger("kern_nb.otel")

_RETRY_AFTER_S = 5
_SHOWN_REASONS = 3
_NAME_OF_TYPE = {JSON: "JSON", PROTOBUF: "protobuf"}

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class OtlpApp:
    """Answers ``POST /v1/traces`` and ``POST /v1/logs``.

    Args:
        recorder: What stores the spans.
        max_body_bytes: The largest body, before and after decompression.
        is_local: Whether only requests to a local name are answered: a page in a browser may give its own name to this
            machine.
    """

    def __init__(self, recorder: TraceRecorder, max_body_bytes: int, *, is_local: bool) -> None:
        self._recorder = recorder
        self._limit = max_body_bytes
        self._is_local = is_local

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI)."""
        if scope["type"] != "http":
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            self._require_route(scope, headers, content_type)
            body = await self._read_body(headers, receive)
            if body is None:
                return
            encoding = headers.get("content-encoding", "").strip().lower()
            answer = await asyncio.to_thread(self._store, scope["path"], content_type, encoding, body)
        except BadRequest as error:
            _log.warning("A request of %s is refused: %s", _peer(scope), error)
            answer = failure(error.status, str(error), content_type)
        await _send(answer, send)

    def _require_route(self, scope: Message, headers: dict[str, str], content_type: str) -> None:
        if self._is_local and not _is_local_name(headers.get("host", "")):
            raise BadRequest(403, f"The host {headers.get('host', '')!r} is not this machine.")
        if scope["path"] not in (TRACES, LOGS):
            raise BadRequest(404, f"There is no {scope['path']}: spans are taken at {TRACES}, log records at {LOGS}.")
        if scope["method"] != "POST":
            raise BadRequest(405, f"{scope['path']} takes POST, not {scope['method']}.")
        if content_type not in _NAME_OF_TYPE:
            raise BadRequest(415, f"The Content-Type {content_type!r} is not supported: send {PROTOBUF} or {JSON}.")

    async def _read_body(self, headers: dict[str, str], receive: Receive) -> bytes | None:
        """The body; None if the sender has gone."""
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._limit:
            raise too_large(self._limit)
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._limit:
                raise too_large(self._limit)
            if not message.get("more_body", False):
                return bytes(body)

    def _store(self, path: str, content_type: str, encoding: str, body: bytes) -> Answer:
        document = decode(path, content_type, decompress(body, encoding, self._limit))
        try:
            if path == LOGS:
                return self._record_logs(document, content_type)
            return self._record_spans(document, content_type)
        except (StoreBusy, StoreUnavailable) as error:
            _log.warning("Spans are not stored yet: %s", error)
            return failure(503, f"{error} {error.hint}".strip(), content_type, _RETRY_AFTER_S)
        except KernError as error:
            _log.error("Spans are not stored: %s %s", error, error.hint)
            return failure(500, f"{error} {error.hint}".strip(), content_type)

    def _record_spans(self, document: dict[str, Any], content_type: str) -> Answer:
        spans: list[Span] = []
        reasons: list[str] = []
        for item in parse_otlp(document, 0):
            if isinstance(item, Span):
                spans.append(item)
            else:
                reasons.append(item)
        rejected = len(reasons)
        rejections = self._recorder.record(spans)
        sizes = Counter(span.trace_id for span in spans)
        rejected += sum(sizes[trace_id] for trace_id in {rejection.trace_id for rejection in rejections})
        reasons += [f"Trace {rejection.trace_id}: {rejection.reason}" for rejection in rejections]
        return _answer(TRACES, content_type, rejected, reasons)

    def _record_logs(self, document: dict[str, Any], content_type: str) -> Answer:
        """Record what log records say about spans; others, such as the messages of a program, are not kept."""
        rejections = self._recorder.record((), parse_logs(document))
        reasons = [f"Trace {rejection.trace_id}: {rejection.reason}" for rejection in rejections]
        return _answer(LOGS, content_type, len(rejections), reasons)


def _answer(path: str, content_type: str, rejected: int, reasons: list[str]) -> Answer:
    text = " ".join(dict.fromkeys(reasons[:_SHOWN_REASONS]))
    if len(reasons) > _SHOWN_REASONS:
        text += f" {len(reasons) - _SHOWN_REASONS} more."
    if text:
        _log.warning("%d items of a request are not stored: %s", rejected, text)
    return success(path, content_type, rejected, text)


def _is_local_name(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    name = name.lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _peer(scope: Message) -> str:
    client = scope.get("client")
    return f"{client[0]}:{client[1]}" if client else "a client"


async def _send(answer: Answer, send: Send) -> None:
    headers = [(b"content-type", answer.content_type.encode()), (b"content-length", str(len(answer.body)).encode())]
    if answer.retry_after_s is not None:
        headers.append((b"retry-after", str(answer.retry_after_s).encode()))
    if answer.status == 413:  # noqa: PLR2004 - the rest of the body is not read
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
