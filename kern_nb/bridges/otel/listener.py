"""`listen`: a server in this process that takes the spans of others, OTLP over HTTP."""

from __future__ import annotations

import atexit
import contextlib
import ipaddress
import logging
import os
import socket
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kern_nb import store_registry
from kern_nb.db.store import SessionStore
from kern_nb.errors import BadUsage, KernError, MissingExtra, StoreUnavailable

if TYPE_CHECKING:
    import uvicorn

    from kern_nb.bridges.otel.recorder import TraceRecorder

_log = logging.getLogger("kern_nb.otel")

DEFAULT_PORT = 4318
_MAX_BODY_BYTES = 64_000_000
_MAX_REQUESTS = 100
_MAX_PORT = 65_535
_START_S = 10.0
_STOP_S = 5.0

_listeners: list[Listener] = []


class Listener:
    """A server that takes spans until `close`, or until the process ends. A context manager.

    Attributes:
        url: Its URL, as the environment variable ``OTEL_EXPORTER_OTLP_ENDPOINT`` takes it.
        store: The store that it writes to.
        host: The address that it listens on.
        port: The port that it listens on.
    """

    def __init__(
        self, store: SessionStore, recorder: TraceRecorder, server: uvicorn.Server, bound: socket.socket
    ) -> None:
        self.store = store
        self.host, self.port = bound.getsockname()[:2]
        self.url = f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"
        self._recorder = recorder
        self._server = server
        self._socket = bound
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._serve, name=f"kern-listen-{self.port}", daemon=True)
        self._thread.start()
        limit = time.monotonic() + _START_S
        while not server.started and self._thread.is_alive() and time.monotonic() < limit:
            time.sleep(0.005)
        if not server.started:
            self._socket.close()
            raise StoreUnavailable(f"The server at {self.url} did not start.", "Try another port, or port=0.")
        _listeners.append(self)
        atexit.register(self.close)

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    @property
    def is_open(self) -> bool:
        """Whether it takes spans."""
        return self in _listeners and self._process == os.getpid() and self._thread.is_alive()

    def close(self) -> None:
        """Stop listening, and write what is known; runs that have not ended are INTERRUPTED.

        Raises:
            KernError: The store cannot be written.
        """
        if self not in _listeners or self._process != os.getpid():
            return
        _listeners.remove(self)
        atexit.unregister(self.close)
        self._server.should_exit = True
        self._thread.join(_STOP_S)
        self._socket.close()
        for rejection in self._recorder.close():
            _log.warning("Trace %s is not stored completely: %s", rejection.trace_id, rejection.reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if not self.is_open:
            return f"<Listener {self.url}, closed>"
        return f"<Listener {self.url}, writes to {store_registry.name_of(self.store)!r}>"


def listen(
    store: str | SessionStore | None = None,
    port: int = DEFAULT_PORT,
    host: str = "127.0.0.1",
    *,
    idle_timeout_s: float = 600,
) -> Listener:
    """Take the spans of instrumented agents in any process, and record them in a store while they run.

    The sender needs no part of kern_nb: set ``OTEL_EXPORTER_OTLP_ENDPOINT`` to `Listener.url`. Sessions, runs, messages
    and tool calls of the conventions for GenAI, OpenInference and OpenLLMetry are stored, other spans are not.

    Args:
        store: A store or the name of an attached one; None for the one in use.
        port: The port; 0 for a free one.
        host: The address to listen on. Whoever reaches it can write to the store: there is no authentication.
        idle_timeout_s: How long a trace waits for its missing spans, before its open runs are INTERRUPTED.

    Returns:
        The listener. It ends with the process, or by `Listener.close`.

    Raises:
        BadUsage: The port is in use, or is none.
        MissingExtra: The server is not installed.
        NoStore: No store is in use, or none has that name.

    Example:
        >>> from kern_nb import listen
        >>> from kern_nb.db import InMemoryDb
        >>> with listen(InMemoryDb(), port=0) as listener:
        ...     listener.url.rpartition(":")[0]
        'http://127.0.0.1'
    """
    target = store_registry.find(store)
    if type(port) is not int or not 0 <= port <= _MAX_PORT:
        raise BadUsage(f"port must be an int from 0 to {_MAX_PORT}, got {port!r}.", "0 takes a free port.")
    for listener in _listeners:
        if port and listener.is_open and (listener.host, listener.port) == (host, port):
            if listener.store is target:
                return listener
            name = store_registry.name_of(listener.store)
            raise BadUsage(f"Port {port} is used by this process, to write to {name!r}.", "Close that listener first.")
    try:
        import uvicorn
        from google.protobuf import json_format as _json_format  # noqa: F401 - what `decode` needs
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as _trace_service  # noqa: F401
    except ImportError as error:
        raise MissingExtra(f"The listener cannot be loaded: {error}.", 'Run pip install "kern_nb[otel]".') from error
    from kern_nb.bridges.otel.app import OtlpApp
    from kern_nb.bridges.otel.recorder import TraceRecorder

    bound = _bind(host, port)
    recorder = TraceRecorder(target, idle_timeout_s)
    app = OtlpApp(recorder, _MAX_BODY_BYTES, is_local=_is_loopback(bound))
    config = uvicorn.Config(
        app, lifespan="off", log_config=None, access_log=False, loop="asyncio", http="h11", ws="none",
        limit_concurrency=_MAX_REQUESTS, timeout_graceful_shutdown=int(_STOP_S), server_header=False,
    )  # fmt: skip
    return Listener(target, recorder, uvicorn.Server(config), bound)


def stop_listening(port: int | None = None) -> None:
    """Close the listeners of this process.

    Args:
        port: The port of those to close; None for all.

    Raises:
        BadUsage: There is none.
        KernError: A store cannot be written. All listeners are closed nevertheless.
    """
    listeners = [listener for listener in _listeners if port is None or listener.port == port]
    if not listeners:
        where = "" if port is None else f" on port {port}"
        raise BadUsage(f"Nothing listens{where} in this process.", f"Listeners: {_listeners or 'none'}.")
    errors: list[KernError] = []
    for listener in listeners:
        try:
            listener.close()
        except KernError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        hint = "Choose another port, or port=0 for a free one; listen(host=...) takes an address of this machine."
        raise BadUsage(f"{host}:{port} cannot be listened on: {error}.", hint) from error


def _is_loopback(bound: socket.socket) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(bound.getsockname()[0]).is_loopback
    return False
