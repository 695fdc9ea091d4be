"""A page in a test: it sends a widget what its script would send, and keeps what comes back."""

from __future__ import annotations

import json
import queue
from typing import Any

SECONDS = 30


class Refused(Exception):
    """A call that was answered with an error; `told` is what the page shows."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(told["message"])
        self.told = told


class Page:
    """One page that shows a widget."""

    def __init__(self, widget: Any) -> None:
        self.widget = widget
        self.came: queue.Queue[dict[str, Any]] = queue.Queue()
        self.count = 0
        widget.comm.publish_msg = self._take  # the end of the line: what is sent from here on is on its way to the page

    def _take(self, msg_type: str, data: Any = None, **_: Any) -> None:
        if msg_type == "comm_msg" and data["method"] == "custom":
            self.came.put(json.loads(json.dumps(data["content"], ensure_ascii=False).encode()))

    def send(self, call: Any, args: Any) -> str:
        """Send a call as a script does; its id."""
        self.count += 1
        self.widget._handle_custom_msg({"id": f"page:{self.count}", "call": call, "args": args}, [])
        return f"page:{self.count}"

    def answer(self) -> dict[str, Any]:
        """The next message that comes."""
        return self.came.get(timeout=SECONDS)

    def ask(self, call: Any, **args: Any) -> Any:
        """The value of a call, or `Refused`."""
        sent = self.send(call, args)
        answer = self.answer()
        assert answer["id"] == sent
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["value"]

    def refused(self, call: Any, **args: Any) -> dict[str, Any]:
        """What is told of a call that must fail."""
        try:
            value = self.ask(call, **args)
        except Refused as error:
            return error.told
        raise AssertionError(f"{call} was answered with {value!r}")
