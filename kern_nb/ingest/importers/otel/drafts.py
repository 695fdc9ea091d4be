"""The draft of a session from its units: their runs, and what spans state about runs and the session."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from kern_nb.ingest.importer import Draft, hash_record, run_id_for
from kern_nb.ingest.importers.otel import dialects
from kern_nb.ingest.importers.otel.runs import Unit
from kern_nb.ingest.importers.otel.spans import OK, Span
from kern_nb.ingest.parsing.values import decode_json, keep_scalars, to_duration
from kern_nb.ingest.run_splitter import SourceMessage, build_runs
from kern_nb.records import Run, Session, ToolCall

NAME = "otel"


@dataclass(slots=True)
class _Group:
    """The messages of a run.

    Attributes:
        first: The first unit that it has messages of.
        unit: The unit of its agent.
        failure: A failed model call that nothing answers.
        model_calls: The model calls that have answers in it.
    """

    first: Unit
    unit: Unit | None = None
    messages: list[SourceMessage] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    failure: Span | None = None
    model_calls: list[Span] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        """The spans that are known to belong to it: those of its agents, else of its model calls."""
        if self.unit is not None:
            return self.unit.spans
        return [*self.model_calls, *([self.failure] if self.failure else [])] or self.first.spans

    @property
    def has_prompt(self) -> bool:
        return any(item.message.role == "user" for item in self.messages)


def build_draft(file: str, session_id: str, units: Sequence[Unit], traces: Iterable[Span], line: int) -> Draft:
    """The session of these units; ``traces`` are all spans, which may have evaluations."""
    spans = [span for unit in units for span in unit.spans]
    groups = _group(units)
    runs, hashes, keys = build_runs(session_id, [group.messages for group in groups])
    for index, group in enumerate(groups):
        facts = _describe(runs[index], group)
        hashes[index] = hash_record(hashes[index], facts)
    for run, name in zip(runs, _run_names(groups), strict=True):
        run.run_id = run_id_for(session_id, name)
    scores, evaluations, scored_at = dialects.scores(traces)
    session = _session(file, session_id, spans, runs)
    if evaluations:
        session.agent_data = (session.agent_data or {}) | {"evaluations": evaluations}
    return Draft(
        file=file,
        line=lambda: line,
        session=session,
        runs=runs,
        hashes=hashes,
        keys=keys,
        session_hash=hash_record(session.agent_id, session.user_id, session.updated_at, session.agent_data),
        source=NAME,
        has_run_ids=True,
        record_ids=[[span.span_id for span in group.spans] for group in groups],
        scores=scores,
        scored_at=scored_at,
    )


def _run_names(groups: Sequence[_Group]) -> Iterator[str]:
    """Identify each run by its agent's span, or the span around its model calls: other files may have other runs.

    A span is written at its end, that of an agent after its model calls: these state which one it will be. The first
    run of a trace has the trace's id, as any number of spans may be around it.
    """
    counts: Counter[str] = Counter()
    for group in groups:
        agent = None if group.unit is None else group.unit.span
        first = next(iter([*group.model_calls, *group.first.spans]), None)
        name = agent.trace_id if agent else first.trace_id if first else ""
        if counts[name] and (span_id := agent.span_id if agent else first and (first.parent_id or first.span_id)):
            name = f"{name}/{span_id}"
        yield f"{name}/{counts[name]}" if counts[name] else name
        counts[name] += 1


def _group(units: Iterable[Unit]) -> list[_Group]:
    """The messages of each run. Without an agent, a run begins with a prompt."""
    groups: list[_Group] = []
    for unit in units:
        if unit.span is not None:
            groups.append(_Group(unit, unit, calls=unit.loose_calls))
        elif not groups or groups[-1].unit is not None:
            groups.append(_Group(unit))
        failures = dict(unit.failures)
        model_calls = {span.span_id: span for span in unit.calls}
        groups[-1].failure = failures.get(0, groups[-1].failure)
        for index, item in enumerate(unit.messages, 1):
            is_prompt = item.message.role == "user" and unit.span is None
            group = groups[-1]
            if is_prompt and group.has_prompt and (group.failure or group.messages[-1].message.role != "user"):
                groups.append(group := _Group(unit))
            group.messages.append(item)
            if answered := model_calls.get(item.message.extra.get("span_id", "")):
                group.model_calls.append(answered)
                group.failure = None
            group.failure = failures.get(index, group.failure)
        if unit.span is None:
            groups[-1].calls += unit.loose_calls
    return groups


def _describe(run: Run, group: _Group) -> list[Any]:
    """Set what spans state about a run; return it, for the hash."""
    run.tool_calls += group.calls
    unit = group.unit
    span = None if unit is None else unit.span
    if unit is not None and span is not None:
        _describe_agent(run, unit, span)
    model_calls = group.model_calls or ([group.failure] if group.failure else [])
    if model_calls:
        run.model = run.model or dialects.model(model_calls[-1])
        run.model_provider = next((name for span in reversed(model_calls) if (name := dialects.provider(span))), None)
        first_chunk = model_calls[0].attributes.get("gen_ai.response.time_to_first_chunk")
        run.time_to_first_token_s = to_duration(first_chunk)
    run.status, run.error = _status(span, group.failure)
    calls = [[call.tool_call_id, call.tool_name, call.args, call.result, call.status] for call in group.calls]
    times = [_iso(run.created_at), _iso(run.finished_at), run.time_to_first_token_s]
    names = [run.agent_id, run.user_id, run.model, run.model_provider]
    usage = None if run.usage is None else run.usage.model_dump()
    return [run.status, run.error, times, names, run.extra, run.input, run.output, usage, calls]


def _describe_agent(run: Run, unit: Unit, span: Span) -> None:
    agents = [span, *unit.agents]
    run.agent_id = next((n for agent in agents if (n := dialects.agent_name(agent))), span.name or None)
    run.user_id = next((n for s in unit.spans if (n := dialects.user_id(s))), None)
    run.model = run.model or next((n for s in agents if (n := dialects.model(s))), None)
    run.created_at, run.finished_at = span.start or run.created_at, span.end or run.finished_at
    run.duration_s = span.duration_s if span.duration_s is not None else run.duration_s
    if unit.prompts:
        texts = [prompt for prompt in unit.prompts if isinstance(prompt, str)]
        run.input = unit.prompts[0] if len(unit.prompts) == 1 else "\n".join(texts) or None
    if run.output is None and not span.failed:
        run.output = span.text("final_result")
    run.usage = unit.usage
    facts = {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "call_id": span.text("gen_ai.agent.call.id"),
        "agent_id": span.identity("gen_ai.agent.id"),
        "agent_version": span.identity("gen_ai.agent.version"),
        "agents": [name for agent in unit.agents if (name := dialects.agent_name(agent) or agent.name)],
        "failed_calls": [s.error for _, s in unit.failures],
        "attributes": dialects.further_attributes(span),
    }
    run.extra = run.extra | {key: value for key, value in facts.items() if value}


_Status = Literal["COMPLETED", "CANCELLED", "ERROR"]


def _status(span: Span | None, failure: Span | None) -> tuple[_Status, str | None]:
    """The status of a run and its error: those of the agent's span, else of a model call that failed last."""
    failed = span if span is not None and span.failed else failure
    if failed is None or (failed is failure and span is not None and span.status == OK):
        return "COMPLETED", None
    return ("CANCELLED" if failed.is_cancelled else "ERROR"), failed.error


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _session(file: str, session_id: str, spans: Sequence[Span], runs: Sequence[Run]) -> Session:
    starts = [int(span.start.timestamp()) for span in spans if span.start]
    ends = [int(span.end.timestamp()) for span in spans if span.end]
    resource = next((span.resource for span in spans if span.resource), {})
    scope = next((span.scope for span in spans if span.scope and dialects.kind_of(span)), {})
    service = resource.get("service.name")
    service = service if isinstance(service, str) else None
    metadata = {
        "file": file,
        "service": service,
        "service_version": resource.get("service.version"),
        "environment": resource.get("deployment.environment.name", resource.get("deployment.environment")),
        "instrumentation": scope.get("name"),
        "instrumentation_version": scope.get("version"),
        "trace_id": spans[0].trace_id if spans else None,
    }
    names = ("gen_ai.tool.definitions", "gen_ai.request.temperature", "llm.invocation_parameters")
    data: dict[str, Any] = {"resource": resource}
    data |= {name: decode_json(span.attributes[name]) for span in spans for name in names if name in span.attributes}
    data["system_instructions"] = next((v for s in spans if (v := dialects.system_instructions(s))), None)
    title = next((name for span in spans if (name := span.text("trace.name"))), None)
    return Session(
        session_id=session_id,
        agent_id=next((run.agent_id for run in reversed(runs) if run.agent_id), service),
        user_id=next((user for span in spans if (user := dialects.user_id(span))), None),
        session_data={"session_name": title} if title else None,
        agent_data={key: value for key, value in data.items() if value},
        metadata=keep_scalars(metadata),
        created_at=min(starts, default=None),
        updated_at=max(ends, default=None),
    )
