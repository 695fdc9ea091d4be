"""What a span says, whichever conventions it follows: OpenTelemetry's for GenAI, OpenInference, OpenLLMetry.

Attributes with numbers in their names (``llm.input_messages.0.message.role``, ``gen_ai.prompt.0.content``) are lists.
Version 1 of pydantic-ai's spans has events instead, as the older conventions do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kern_nb.ingest.importers.otel.messages import Cache, Piece, parse_json_messages, parse_messages, parse_value
from kern_nb.ingest.importers.otel.spans import Span
from kern_nb.ingest.parsing.values import decode_json, sum_present, to_count, to_list, to_number, to_object
from kern_nb.records import Usage

LLM, AGENT, TOOL = "llm", "agent", "tool"

_OPERATIONS = {
    "chat": LLM, "generate_content": LLM, "text_completion": LLM, "completion": LLM,
    "invoke_agent": AGENT, "execute_tool": TOOL,
}  # fmt: skip
_KINDS = {"LLM": LLM, "AGENT": AGENT, "TOOL": TOOL}

_SESSION = (
    "gen_ai.conversation.id", "session.id", "langfuse.session.id", "traceloop.association.properties.session_id",
    "traceloop.association.properties.thread_id",
)  # fmt: skip
_USER = ("user.id", "enduser.id", "langfuse.user.id", "traceloop.association.properties.user_id")
_AGENT = ("gen_ai.agent.name", "agent.name", "agent_name", "graph.node.id", "gen_ai.agent.id")

# The field of `Usage`, and the attributes that have it.
_COUNTS = {
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"),
    "cache_read_tokens": (
        "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens",
        "llm.token_count.prompt_details.cache_read", "gen_ai.usage.details.cache_read_tokens",
    ),
    "cache_write_tokens": (
        "gen_ai.usage.cache_creation.input_tokens", "gen_ai.usage.cache_creation_input_tokens",
        "llm.token_count.prompt_details.cache_write", "gen_ai.usage.details.cache_write_tokens",
    ),
    "reasoning_tokens": (
        "gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens",
        "llm.token_count.completion_details.reasoning", "gen_ai.usage.details.reasoning_tokens",
    ),
}  # fmt: skip
_TOTALS = ("gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total")
_COSTS = ("gen_ai.usage.cost", "operation.cost", "llm.cost.total")
_COST_PARTS = ("llm.cost.prompt", "llm.cost.completion")
_USAGE_PREFIXES = ("gen_ai.usage.", "llm.token_count.", "llm.usage.", "llm.cost.", "operation.cost")
# Prefixes of the attributes that are messages, calls and usage, or that repeat in each call.
_MAPPED = (
    "gen_ai.operation.name", "gen_ai.conversation.id", "gen_ai.input.", "gen_ai.output.", "gen_ai.prompt",
    "gen_ai.completion", "gen_ai.system", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.response.",
    "gen_ai.usage.", "gen_ai.tool.", "gen_ai.agent.", "llm.input_messages.", "llm.output_messages.", "llm.tools.",
    "llm.token_count.", "llm.usage.", "llm.cost.", "llm.model_name", "llm.provider", "llm.system", "llm.request.type",
    "openinference.span.kind", "session.id", "user.id", "input.", "output.", "tool.name", "tool.parameters",
    "tool.description", "agent.name", "graph.node.id", "traceloop.entity.", "traceloop.span.kind",
    "langfuse.session.id", "langfuse.user.id",
    "trace.name", "pydantic_ai.all_messages", "all_messages_events", "events", "final_result", "tool_arguments",
    "tool_response", "model_request_parameters", "logfire.json_schema", "operation.cost", "error.type", "model_name",
    "agent_name",
)  # fmt: skip
_MAX_DIGITS = 15
_MAX_DEPTH = 20


def kind_of(span: Span) -> str | None:
    """LLM, AGENT or TOOL; None for another span."""
    attributes = span.attributes
    operation, kind = attributes.get("gen_ai.operation.name"), attributes.get("openinference.span.kind")
    if isinstance(operation, str) and operation in _OPERATIONS:
        return _OPERATIONS[operation]
    if isinstance(kind, str):
        return _KINDS.get(kind.upper())
    if isinstance(operation, str) or attributes.get("llm.request.type") in ("embedding", "rerank"):
        return None
    loop = attributes.get("traceloop.span.kind")
    if loop in (AGENT, TOOL):
        return str(loop)
    if "gen_ai.tool.name" in attributes:
        return TOOL
    if "all_messages_events" in attributes or "pydantic_ai.all_messages" in attributes:
        return AGENT
    has_model = "gen_ai.request.model" in attributes or attributes.get("llm.request.type") in ("chat", "completion")
    return LLM if has_model else None


def session_id(span: Span) -> str | None:
    """The conversation that the span states."""
    return span.identity(*_SESSION)


def user_id(span: Span) -> str | None:
    """The user that the span states."""
    return span.identity(*_USER)


def agent_name(span: Span) -> str | None:
    """The agent that the span states."""
    loop = span.attributes.get("traceloop.span.kind") == AGENT
    return span.text(*_AGENT) or (span.text("traceloop.entity.name") if loop else None)


def model(span: Span) -> str | None:
    """The model that answered."""
    return span.text("gen_ai.response.model", "gen_ai.request.model", "llm.model_name", "model_name")


def provider(span: Span) -> str | None:
    """Who runs the model."""
    return span.text("gen_ai.provider.name", "llm.provider", "gen_ai.system", "llm.system")


def input_pieces(span: Span, cache: Cache | None = None) -> tuple[list[Piece], str | None]:
    """The messages of a model call's input, and the rest of a truncated attribute."""
    attributes = _with_details(span)
    for name in ("gen_ai.input.messages", "gen_ai.prompt"):
        if attributes.get(name):
            return parse_json_messages(attributes[name], "user", cache)
    for name in ("llm.input_messages", "gen_ai.prompt"):
        if items := to_list(_nest(attributes, name)):
            return parse_messages(map(_unwrap, items), "user", cache), None
    if items := [message for message, is_output in _event_messages(span) if not is_output]:
        return parse_messages(items), None
    return parse_value(attributes.get("input.value", attributes.get("traceloop.entity.input")), "user"), None


def output_pieces(span: Span) -> tuple[list[Piece], str | None]:
    """The messages of a model call's output, and the rest of a truncated attribute."""
    attributes = _with_details(span)
    for name in ("gen_ai.output.messages", "gen_ai.completion"):
        if attributes.get(name):
            return parse_json_messages(attributes[name], "assistant")
    for name in ("llm.output_messages", "gen_ai.completion"):
        if items := to_list(_nest(attributes, name)):
            return parse_messages(map(_unwrap, items), "assistant"), None
    if items := [message for message, is_output in _event_messages(span) if is_output]:
        return parse_messages(items, "assistant"), None
    return parse_value(attributes.get("output.value", attributes.get("traceloop.entity.output")), "assistant"), None


def conversation_pieces(span: Span, cache: Cache | None = None) -> list[Piece]:
    """The whole conversation that pydantic-ai adds to the span of an agent."""
    for name in ("pydantic_ai.all_messages", "all_messages_events"):
        if value := span.attributes.get(name):
            if name == "pydantic_ai.all_messages":
                return parse_json_messages(value, "user", cache)[0]
            return parse_messages(message for message, _ in _decode_events(value))
    return []


def system_instructions(span: Span) -> Any:
    """The instructions that a span states apart from the messages: a text, or what else it has."""
    value = _with_details(span).get("gen_ai.system_instructions")
    pieces = parse_json_messages([{"role": "system", "parts": value}] if isinstance(value, list) else value, "system")[
        0
    ]
    texts = [piece.value for piece in pieces if piece.kind == "text" and isinstance(piece.value, str)]
    return "\n".join(texts) or None


def usage(span: Span) -> tuple[Usage | None, dict[str, Any]]:
    """The usage of a model call, and the attributes that state it."""
    attributes = span.attributes
    raw = {k: v for k, v in attributes.items() if k.startswith(_USAGE_PREFIXES) and not isinstance(v, (dict, list))}
    values: dict[str, Any] = {}
    for field, names in _COUNTS.items():
        values[field] = next((n for name in names if (n := _count(attributes.get(name))) is not None), None)
    total = next((n for name in _TOTALS if (n := _count(attributes.get(name))) is not None), None)
    cached = sum(values[name] or 0 for name in ("cache_read_tokens", "cache_write_tokens"))
    stated = values["input_tokens"]
    if stated is not None and (
        stated < cached or (cached and total == stated + (values["output_tokens"] or 0) + cached)
    ):
        values["input_tokens"] = stated + cached  # the source counts them beside the input
    costs = [_number(attributes.get(name)) for name in _COSTS]
    costs.append(sum_present(_number(attributes.get(name)) for name in _COST_PARTS))
    cost = next((value for value in costs if value), None)  # a cost of 0 is an unknown price
    if cost is None and all(value is None for value in values.values()):
        return None, raw
    return Usage(**values, cost=cost), raw


def _count(value: Any) -> int | None:
    if isinstance(value, str) and value.isdigit() and len(value) <= _MAX_DIGITS:
        value = int(value)
    return to_count(value)


def _number(value: Any) -> float | None:
    """A finite number; some writers have it as text."""
    try:
        return to_number(float(value) if isinstance(value, str) else value)
    except ValueError:
        return None


def further_attributes(span: Span) -> dict[str, Any]:
    """The attributes that nothing else has: settings of a call, what the user adds."""
    return {name: value for name, value in span.attributes.items() if not name.startswith(_MAPPED)}


def tool_name(span: Span) -> str | None:
    """The tool of a tool's span."""
    return span.text("gen_ai.tool.name", "tool.name", "traceloop.entity.name") or span.name or None


def is_handoff(span: Span) -> bool:
    """Whether it is the handoff to another agent of the OpenAI Agents SDK, which is recorded like a tool."""
    return span.name.startswith("handoff to ") and "tool.name" not in span.attributes


def tool_call_id(span: Span) -> str | None:
    """The id of the call, which OpenInference lacks."""
    value = next((v for n in ("gen_ai.tool.call.id", "tool_call.id") if (v := span.attributes.get(n))), None)
    return str(value) if type(value) in (str, int) else None


def tool_args(span: Span) -> Any:
    """The decoded arguments of a call."""
    names = ("gen_ai.tool.call.arguments", "tool_arguments", "input.value", "traceloop.entity.input")
    return decode_json(next((v for name in names if (v := span.attributes.get(name)) is not None), None))


def tool_result(span: Span) -> Any:
    """The result of a call, as it is stated."""
    names = ("gen_ai.tool.call.result", "tool_response", "output.value", "traceloop.entity.output")
    return next((v for name in names if (v := span.attributes.get(name)) is not None), None)


def scores(spans: Iterable[Span]) -> tuple[dict[str, float], list[dict[str, Any]], int | None]:
    """The evaluations of spans: the score of each name, all of their attributes, and the time of the last one."""
    values: dict[str, float] = {}
    rows: list[dict[str, Any]] = []
    times = []
    for span in spans:
        for event in span.events:
            name = event.attributes.get("gen_ai.evaluation.name")
            if event.name != "gen_ai.evaluation.result" or not isinstance(name, str) or not name:
                continue
            value = _number(event.attributes.get("gen_ai.evaluation.score.value"))
            values |= {} if value is None else {name: value}
            row = {"span_id": span.span_id, **event.attributes}
            rows += [row] if row not in rows else []
            times += [event.time] if event.time else []
    return values, rows, int(max(times).timestamp() * 1_000_000) if times else None


def is_relevant(span: Span) -> bool:
    """Whether it is a span of an agent, a model call or a tool, or has an evaluation."""
    return kind_of(span) is not None or any(event.name == "gen_ai.evaluation.result" for event in span.events)


def _with_details(span: Span) -> dict[str, Any]:
    """The attributes, with the messages that the conventions also allow in an event."""
    attributes = span.attributes
    for event in span.events:
        if event.name in (
            "gen_ai.client.inference.operation.details",
            "gen_ai.content.prompt",
            "gen_ai.content.completion",
        ):
            attributes = event.attributes | attributes
    return attributes


def _event_messages(span: Span) -> list[tuple[dict[str, Any], bool]]:
    """The messages that events of the older conventions have, and whether each one is the output."""
    messages = _decode_events(span.attributes.get("events"))
    for event in span.events:
        messages += _decode_events([{"event.name": event.name, **event.attributes}])
    return messages


def _decode_events(value: Any) -> list[tuple[dict[str, Any], bool]]:
    messages = []
    for event in to_list(decode_json(value)):
        name = event.get("event.name") if isinstance(event, dict) else None
        if not isinstance(name, str) or not name.startswith("gen_ai."):
            continue
        if name == "gen_ai.choice":
            message = to_object(decode_json(event.get("message"))) or event
            messages.append(({"role": "assistant", "finish_reason": event.get("finish_reason"), **message}, True))
        elif name.endswith(".message"):
            message = {"role": name.split(".")[1], **event}
            message["tool_calls"] = decode_json(message.get("tool_calls"))
            messages.append((message, False))
    return messages


def _nest(attributes: dict[str, Any], prefix: str) -> Any:
    """The value under a prefix of attribute names: numbers in the names are positions in lists."""
    tree: dict[str, Any] = {}
    for name, value in attributes.items():
        if not name.startswith(f"{prefix}."):
            continue
        *path, last = name[len(prefix) + 1 :].split(".", _MAX_DEPTH)
        node = tree
        for key in path:
            child = node.setdefault(key, {})
            if not isinstance(child, dict):
                child = node[key] = {}
            node = child
        node.setdefault(last, value)
    return _to_lists(tree)


def _to_lists(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if node and all(key.isdecimal() and len(key) <= _MAX_DIGITS for key in node):
        return [_to_lists(node[key]) for key in sorted(node, key=int)]
    return {key: _to_lists(value) for key, value in node.items()}


def _unwrap(item: Any) -> Any:
    """A message of OpenInference, whose parts and calls are in an object with their kind as the key."""
    message = to_object(item).get("message", item)
    if not isinstance(message, dict):
        return message
    message = dict(message)
    contents = [to_object(part).get("message_content", part) for part in to_list(message.get("contents"))]
    if contents:
        message["contents"] = [_unwrap_image(part) for part in contents]
    calls = [to_object(call).get("tool_call", call) for call in to_list(message.get("tool_calls"))]
    if message.get("function_call_name"):
        arguments = message.get("function_call_arguments_json")
        calls.append({"name": message["function_call_name"], "arguments": arguments})
    return message | ({"tool_calls": calls} if calls else {})


def _unwrap_image(part: Any) -> Any:
    image = to_object(to_object(to_object(part).get("image")).get("image"))
    return {**part, "image": image} if image else part
