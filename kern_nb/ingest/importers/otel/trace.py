"""The spans of a trace: how they are nested, and to which agent and session each of them belongs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from kern_nb.ingest.importers.otel import dialects
from kern_nb.ingest.importers.otel.dialects import AGENT, LLM, TOOL
from kern_nb.ingest.importers.otel.spans import Span


class Trace:
    """The spans of a trace and how they are nested."""

    def __init__(self, spans: Iterable[Span]) -> None:
        self.spans = sorted(spans, key=lambda span: span.start_ns)
        self._by_id = {span.span_id: span for span in self.spans}
        self._kinds = {span.span_id: dialects.kind_of(span) for span in self.spans}

    def kind(self, span: Span) -> str | None:
        """LLM, AGENT, TOOL or None."""
        return self._kinds[span.span_id]

    def ancestors(self, span: Span) -> Iterator[Span]:
        """Yield the spans around a span, the nearest first."""
        seen = {span.span_id}
        while span.parent_id in self._by_id and span.parent_id not in seen:
            span = self._by_id[span.parent_id]
            seen.add(span.span_id)
            yield span

    def owner(self, span: Span) -> tuple[Span | None, Span | None]:
        """The agent around a span, and the span of a tool between the two."""
        return self._owners[span.span_id]

    @cached_property
    def _owners(self) -> dict[str, tuple[Span | None, Span | None]]:
        return {span.span_id: self._find_owner(span) for span in self.spans}

    def _find_owner(self, span: Span) -> tuple[Span | None, Span | None]:
        tool = None
        for ancestor in self.ancestors(span):
            if self.kind(ancestor) == AGENT:
                return ancestor, tool
            if self.kind(ancestor) == TOOL and tool is None:
                tool = ancestor
        return None, tool

    @cached_property
    def _stated_by_agent(self) -> dict[str, str]:
        """The first session that the spans of an agent state, tools and nested agents apart."""
        stated: dict[str, str] = {}
        for span in self.spans:
            agent, tool = self.owner(span)
            session_id = dialects.session_id(span)
            if agent is not None and tool is None and session_id:
                stated.setdefault(agent.span_id, session_id)
        return stated

    def outer_call(self, span: Span) -> Span:
        """The outermost record of a model call: a framework and its client library may both record it."""
        for ancestor in self.ancestors(span):
            if self.kind(ancestor) in (AGENT, TOOL):
                break
            if self.kind(ancestor) == LLM:
                span = ancestor
        return span

    def _anchor(self, span: Span) -> Span:
        """The outermost agent around a span, or the span itself.

        It is a tool if the span around that is missing: a span is written at its end, which a crash prevents.
        """
        chain = [span, *self.ancestors(span)]
        kinds = (AGENT,) if chain[-1].parent_id is None else (AGENT, TOOL)
        return next((s for s in reversed(chain) if self.kind(s) in kinds), span)

    def session_id(self, *anchors: Span) -> str:
        """The session of spans: their own, that of a span around them, of their model calls, or the trace."""
        for anchor in anchors:
            for candidate in (anchor, *self.ancestors(anchor)):
                if stated := dialects.session_id(candidate):
                    return stated
        return self._stated_by_agent.get(anchors[0].span_id, self._session_id)

    @cached_property
    def _session_id(self) -> str:
        """The session of spans that state none: that of a root, or the trace."""
        roots = (s for s in self.spans if s.parent_id not in self._by_id)
        return next((stated for s in roots if (stated := dialects.session_id(s))), self.spans[0].trace_id)

    def top_groups(self) -> Iterator[tuple[str, Span | None, list[Span]]]:
        """Yield each topmost agent with its session and all relevant spans; those without an agent by session.

        Spans below a missing one, which may be that of an agent, are apart from others.
        """
        groups: dict[Any, tuple[str, Span | None, list[Span]]] = {}
        for span in self.spans:
            if self.kind(span) is None:
                continue
            anchor = self._anchor(span)
            top = anchor if self.kind(anchor) == AGENT else None
            outermost = [span, *self.ancestors(span)][-1]
            key = (top.span_id,) if top else (None, self.session_id(anchor, span), outermost.parent_id)
            session_id = groups[key][0] if key in groups else self.session_id(anchor, span)
            groups.setdefault(key, (session_id, top, []))[2].append(span)
        yield from groups.values()
