"""A page in a test: it sends a widget the messages of its script, and collects the answers."""

from __future__ import annotations

import json
import queue
from typing import Any

TIMEOUT_S = 30


class Refused(Exception):
    """A call that failed; `payload` is the error as the page shows it."""

    def __init__(self, payload: dict[str, Any]) -> None:
        super().__init__(payload["message"])
        self.payload = payload


class Page:
    """A page that shows a widget."""

    def __init__(self, widget: Any) -> None:
        self.widget = widget
        self.messages: queue.Queue[dict[str, Any]] = queue.Queue()
        self.count = 0
        widget.comm.publish_msg = self._receive  # replaces the transport to the page

    def _receive(self, msg_type: str, data: Any = None, **_: Any) -> None:
        if msg_type == "comm_msg" and data["method"] == "custom":
            self.messages.put(json.loads(json.dumps(data["content"], ensure_ascii=False).encode()))

    def send(self, call: Any, args: Any) -> str:
        """Send a call like a script, and return its id."""
        self.count += 1
        self.widget._handle_custom_msg({"id": f"page:{self.count}", "call": call, "args": args}, [])
        return f"page:{self.count}"

    def answer(self) -> dict[str, Any]:
        """Return the next message."""
        return self.messages.get(timeout=TIMEOUT_S)

    def ask(self, call: Any, **args: Any) -> Any:
        """Return the value of a call, or raise `Refused`."""
        call_id = self.send(call, args)
        answer = self.answer()
        assert answer["id"] == call_id
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["value"]

    def refused(self, call: Any, **args: Any) -> dict[str, Any]:
        """Return the error of a call that must fail."""
        try:
            value = self.ask(call, **args)
        except Refused as error:
            return error.payload
        raise AssertionError(f"{call} returned {value!r}")
