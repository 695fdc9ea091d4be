"""Runs of LangSmith as traces: grouped, in order, with those of nested agents apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from kern_nb.ingest.importer import MalformedRecord
from kern_nb.ingest.parsing.times import parse_time
from kern_nb.ingest.parsing.values import to_id, to_list, to_object

MODEL_TYPES = ("llm", "chat_model")

_CONVERSATION_KEYS = ("thread_id", "session_id", "conversation_id")


def is_run(value: Any) -> bool:
    """Whether a value is a run: it has an id, a type, inputs, and its place in a trace."""
    if not isinstance(value, dict) or not to_id(value.get("id")) or not isinstance(value.get("run_type"), str):
        return False
    return "inputs" in value and any(key in value for key in ("trace_id", "dotted_order", "parent_run_id"))


def flatten(value: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A run and those nested in it, as `Client.read_run` and the tracers of LangChain have them."""
    pending: list[tuple[dict[str, Any], dict[str, Any]]] = [(value, {})]
    while pending:
        run, parent = pending.pop()
        inherited = {"trace_id": parent.get("trace_id"), "parent_run_id": parent.get("id")} if parent else {}
        run = {**run, **{key: value for key, value in inherited.items() if not to_id(run.get(key))}}
        pending += [(child, run) for child in to_list(run.pop("child_runs", None))[::-1] if isinstance(child, dict)]
        yield run


@dataclass(slots=True)
class Trace:
    """The runs of one trace, or of a nested agent in it, the root first, then in the order in which they started.

    Attributes:
        runs: The runs, without those of nested agents.
        line: The line of the first of them.
        nested: The nested agents: the runs below those of tools that call models, outer agents first.
        tool: The run of the tool that is a nested agent.
        parent_id: The id of the run of the tool that is the agent around this one; None if that is the trace's own.
    """

    runs: list[dict[str, Any]]
    line: int
    nested: list[Trace] = field(default_factory=list)
    tool: dict[str, Any] | None = None
    parent_id: str | None = None

    @property
    def root(self) -> dict[str, Any]:
        """The root run."""
        return self.runs[0]

    @property
    def conversation_id(self) -> str:
        """The conversation that it belongs to, else its own id."""
        for run in self.runs:
            metadata = metadata_of(run)
            for key in _CONVERSATION_KEYS:
                if conversation_id := to_id(metadata.get(key)):
                    return conversation_id
        return to_id(self.root.get("trace_id")) or str(self.root["id"])


def metadata_of(run: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a run."""
    return to_object(to_object(run.get("extra")).get("metadata"))


def group_traces(runs: Iterable[tuple[int, dict[str, Any]]]) -> list[Trace]:
    """Group runs, with the lines where they are, by trace; in the order in which the traces started."""
    by_id: dict[str, tuple[int, dict[str, Any]]] = {}
    for line, run in runs:
        by_id.setdefault(str(run["id"]), (line, run))
    groups: dict[str, list[tuple[int, dict[str, Any]]]] = defaultdict(list)
    for name, (line, run) in by_id.items():
        groups[to_id(run.get("trace_id")) or _root_id(name, by_id)].append((line, run))
    traces = []
    for group in groups.values():
        group.sort(key=lambda item: _order(item[1]))
        root = next((run for _, run in group if not to_id(run.get("parent_run_id"))), group[0][1])
        rest = [run for _, run in group if run is not root]
        traces.append(_split_nested(Trace([root, *rest], min(line for line, _ in group))))
    return sorted(traces, key=lambda trace: _order(trace.root))


def _split_nested(trace: Trace) -> Trace:
    """Take the runs of nested agents out of a trace."""
    by_id = {str(run["id"]): run for run in trace.runs}
    tools = {name for name, run in by_id.items() if run["run_type"] == "tool" and run is not trace.root}

    def tool_around(run: dict[str, Any], names: set[str]) -> str | None:
        """The innermost of these tools whose run a run is below."""
        seen: set[str] = set()
        while (parent := to_id(run.get("parent_run_id"))) in by_id and parent is not None and parent not in seen:
            if parent in names:
                return parent
            seen.add(parent)
            run = by_id[parent]
        return None

    agents = {tool_around(run, tools) for run in trace.runs if run["run_type"] in MODEL_TYPES} - {None}
    names = {name for name in agents if name is not None}
    groups: dict[str | None, list[dict[str, Any]]] = defaultdict(list)
    for run in trace.runs:
        groups[tool_around(run, names) if names else None].append(run)
    for name, tool in by_id.items():
        if name in names:
            runs = groups[name]
            top = [run for run in runs if to_id(run.get("parent_run_id")) == name]
            if len(top) != 1:
                top = [{**tool, "run_type": "chain", "inputs": None, "outputs": None}]
            rest = [run for run in runs if run is not top[0]]
            trace.nested.append(Trace([top[0], *rest], trace.line, tool=tool, parent_id=tool_around(tool, names)))
    trace.runs = groups[None]
    return trace


def _root_id(name: str, by_id: dict[str, tuple[int, dict[str, Any]]]) -> str:
    seen = {name}
    while (parent := to_id(by_id[name][1].get("parent_run_id"))) in by_id and parent not in seen:
        name = str(parent)
        seen.add(name)
    return name


def _order(run: dict[str, Any]) -> tuple[float, str]:
    start = parse_time(run.get("start_time"))
    return (start.timestamp() if start else 0.0, str(run.get("dotted_order") or ""))


def require_run(value: dict[str, Any]) -> dict[str, Any]:
    """Check that the parts of a run that are read have the right types."""
    for key in ("inputs", "outputs", "extra"):
        if not isinstance(value.get(key), (dict, list, str, type(None))):
            raise MalformedRecord(f"{key!r} of run {value['id']!r} must be an object")
    return value
