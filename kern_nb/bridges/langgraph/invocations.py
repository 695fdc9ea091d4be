"""`Invocations`: with which configuration and context each thread was invoked last, for the one that resumes it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

_MAX_THREADS = 1000
_RUNTIME = "__pregel_runtime"  # where LangGraph puts the context of an invocation into its configuration
_PREFIXES = ("__", "checkpoint_", "langgraph_")  # of keys that LangGraph sets itself
_OWN_METADATA = ("source", "step", "parents", "run_id", "writes", "thread_id", "counters_since_delta_snapshot")


class Invocations:
    """The latest invocation of each thread in this process."""

    def __init__(self) -> None:
        self._latest: OrderedDict[str, tuple[dict[str, Any], Any]] = OrderedDict()

    def remember(self, thread_id: str, configurable: Mapping[str, Any]) -> None:
        """Note the values and the context of an invocation."""
        context = getattr(configurable.get(_RUNTIME), "context", None)
        self._latest.pop(thread_id, None)
        self._latest[thread_id] = (_select_values(configurable), context)
        while len(self._latest) > _MAX_THREADS:
            self._latest.popitem(last=False)

    def configurable(self, thread_id: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a thread's latest invocation; of another process, those in the checkpoint's metadata."""
        if thread_id in self._latest:
            return self._latest[thread_id][0]
        return _select_values(metadata)

    def context(self, thread_id: str) -> Any:
        """The context of a thread's latest invocation; None without one."""
        return self._latest.get(thread_id, ({}, None))[1]


def _select_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k not in _OWN_METADATA and not k.startswith(_PREFIXES)}
