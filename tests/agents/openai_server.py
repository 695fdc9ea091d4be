"""A local HTTP server that speaks OpenAI's Responses and Chat Completions: real clients, no key and no network."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import openai_answers as answers
from openai_answers import Answer, Call
from openai_requests import Body, conversation, refusal, small_model

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Answer", "Call", "OpenAIServer", "Request", "conversation", "in_turn", "openai_server"]

Answering = Callable[[Body], Answer | str]
APIS = {
    "/v1/responses": (answers.response, answers.response_stream, answers.response_failure),
    "/v1/chat/completions": (answers.completion, answers.completion_stream, answers.completion_failure),
}


@dataclass(frozen=True)
class Request:
    """What a client sent; names of headers are in lower case."""

    path: str
    headers: dict[str, str]
    body: Body

    @property
    def conversation(self) -> list[tuple[str, str]]:
        """What was sent as pairs of role and text."""
        return conversation(self.body)


def in_turn(*script: Answer | str) -> Answering:
    """Give these answers one after another, whatever is asked; a request beyond the last fails the test."""
    rest = iter(script)
    lock = threading.Lock()

    def answer(_: Body) -> Answer | str:
        with lock:
            for given in rest:
                return given
        raise AssertionError(f"the script has {len(script)} answers, and there was one more request")

    return answer


class OpenAIServer(ThreadingHTTPServer):
    """Listens on a free port of the loopback; `answer` may be replaced at any time."""

    daemon_threads = False  # so that stopping waits for them

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: Answering = small_model
        self.requests: list[Request] = []
        self.failures: list[BaseException] = []  # of `answer`, in threads where no test would see them
        self.stopping = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """What a client takes as its base URL."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection: a client keeps it open, and stopping must not wait for that."""
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def stop(self) -> None:
        """End every answer that is under way, and every thread."""
        self.stopping.set()
        self.shutdown()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def wait(self, answer: Answer) -> None:
        """Take as long as the answer is to take, or until the server stops."""
        self.stopping.wait(answer.delay)
        while answer.gate and not self.stopping.is_set() and not answer.gate.wait(0.02):
            pass


@contextlib.contextmanager
def openai_server() -> Iterator[OpenAIServer]:
    """Run a server; what its `answer` raised is raised here in the end."""
    server = OpenAIServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
    if server.failures:
        raise server.failures[0]


class _Handler(BaseHTTPRequestHandler):
    """One connection, kept open between requests as the real service does."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: OpenAIServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: output belongs to the test."""

    def handle(self) -> None:
        """A client may go away at any moment."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """Nothing can be fetched."""
        self._fail(404, f"Invalid URL (GET {self.path})")

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path not in APIS:
            return self._fail(404, f"Invalid URL (POST {self.path})")
        if not self.headers.get("Authorization", "").removeprefix("Bearer ").strip():
            return self._fail(401, "You didn't provide an API key.")
        try:
            body = json.loads(sent)
        except ValueError:
            return self._fail(400, "We could not parse the JSON body of your request.")
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(Request(self.path, headers, body))
        if why := refusal(body):
            return self._fail(400, why)
        try:
            given = self.server.answer(body)
        except BaseException as error:  # noqa: BLE001, it fails the test, later
            self.server.failures.append(error)
            return self._fail(500, f"the test's answer raised {error!r}")
        return self._answer(body, Answer(given) if isinstance(given, str) else given)

    def _answer(self, body: Body, answer: Answer) -> None:
        whole, stream, failure = APIS[self.path]
        if body.get("stream") and answer.after:
            return self._stream(stream(body, answer), answer, failure(body, answer))
        self.server.wait(answer)
        if answer.drop or self.server.stopping.is_set():
            return self._drop()
        if answer.status != HTTPStatus.OK:
            return self._fail(answer.status, answer.message)
        if body.get("stream"):
            return self._stream(stream(body, answer), answer, b"")
        return self._send(200, whole(body, answer))

    def _stream(self, events: Iterator[bytes], answer: Answer, failure: bytes) -> None:
        """Send the events, each on its own; after `answer.after` of them comes what the answer has in store."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("x-request-id", f"req_{len(self.server.requests)}")
        self.end_headers()
        for event in itertools.islice(events, answer.after):
            self._chunk(event)
        if answer.after:
            self.server.wait(answer)
            if answer.drop or self.server.stopping.is_set():
                return self._drop()
            if answer.status != HTTPStatus.OK:
                events = iter([failure])
        for event in events:
            self._chunk(event)
        return self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _drop(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def _fail(self, status: int, message: str = "") -> None:
        self._send(status, answers.error_body(status, message))

    def _send(self, status: int, body: Body) -> None:
        encoded = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.send_header("x-request-id", f"req_{len(self.server.requests)}")
        if status != HTTPStatus.OK:
            self.send_header("retry-after-ms", "1")  # a client that tries again does not make the test wait
        self.end_headers()
        self.wfile.write(encoded)
