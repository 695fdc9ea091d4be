"""Spans of agents as instrumentations record them, made with the SDK of OpenTelemetry; and their rows to compare."""

from __future__ import annotations

import json
from contextlib import contextmanager

from opentelemetry.trace import Status, StatusCode

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m-1", "gen_ai.provider.name": "acme"}
USAGE = {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 2}


def text(role, content):
    return {"role": role, "parts": [{"type": "text", "content": content}]}


def call(call_id, name, arguments):
    return {"role": "assistant", "parts": [{"type": "tool_call", "id": call_id, "name": name, "arguments": arguments}]}


def result(call_id, content):
    return {"role": "tool", "parts": [{"type": "tool_call_response", "id": call_id, "response": content}]}


class AgentSpans:
    """Records what agents do with a tracer."""

    def __init__(self, provider):
        self.tracer = provider.get_tracer("acme-agents", "1.0")

    @contextmanager
    def agent(self, name, conversation=None):
        """The span of an agent; an exception of its body is its error."""
        attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name}
        attributes |= {"gen_ai.conversation.id": conversation} if conversation else {}
        with self.tracer.start_as_current_span(f"invoke_agent {name}", attributes=attributes) as span:
            yield span

    def chat(self, sent, received, conversation=None):
        """A model call."""
        attributes = CHAT | USAGE | {"gen_ai.input.messages": json.dumps(sent)}
        attributes |= {"gen_ai.output.messages": json.dumps(received)}
        attributes |= {"gen_ai.conversation.id": conversation} if conversation else {}
        with self.tracer.start_as_current_span("chat m-1", attributes=attributes):
            pass

    def failed_chat(self, sent):
        """A model call that fails."""
        attributes = CHAT | {"gen_ai.input.messages": json.dumps(sent), "error.type": "Overloaded"}
        with self.tracer.start_as_current_span("chat m-1", attributes=attributes) as span:
            span.set_status(Status(StatusCode.ERROR, "the model is overloaded"))

    @contextmanager
    def tool(self, name, call_id, arguments, answer):
        """The execution of a tool."""
        attributes = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name, "gen_ai.tool.call.id": call_id}
        attributes |= {"gen_ai.tool.call.arguments": json.dumps(arguments), "gen_ai.tool.call.result": answer}
        with self.tracer.start_as_current_span(f"execute_tool {name}", attributes=attributes) as span:
            yield span

    def failing(self, conversation):
        """A run whose model call fails, and then its agent."""
        with self.agent("desk", conversation):
            self.failed_chat([text("user", "Anyone?")])
            raise ValueError("broken")

    def support(self, conversation, history, prompt, *, call_id="c1", nested=False, expert=None, stated_early=True):
        """A run with a tool call, by which another agent may be asked; returns the history after it.

        ``expert`` is the conversation that the other agent states.
        """
        early = conversation if stated_early else None
        with self.agent("desk", conversation):
            sent = [*history, text("user", prompt)]
            called = call(call_id, "look", {"x": prompt})
            self.chat(sent, [called], early)
            with self.tool("look", call_id, {"x": prompt}, "seen"):
                if nested:
                    with self.agent("expert", expert):
                        self.chat([text("user", f"about {prompt}")], [text("assistant", "I know.")])
            sent = [*sent, called, result(call_id, "seen")]
            self.chat(sent, [text("assistant", f"Done: {prompt}.")], early)
        return [*sent, text("assistant", f"Done: {prompt}.")]


RUN = ["session_id", "run_id", "parent_run_id", "agent_id", "status", "input", "output", "model", "n_messages"]
RUN += ["n_tool_calls", "input_tokens", "output_tokens", "error", "created_at", "finished_at", "duration_s"]
MESSAGE = ["session_id", "run_id", "message_index", "role", "content", "tool_call_id", "tool_name", "model"]
MESSAGE += ["input_tokens", "created_at"]
CALL = ["session_id", "run_id", "message_index", "tool_call_id", "tool_name", "args", "result", "status", "duration_s"]
SESSION = ["session_id", "agent_id", "user_id", "n_runs", "n_messages", "total_tokens", "status", "created_at"]


def rows_of(store, *, ids=True):
    """The rows of a store in an order of their own; without ``ids``, runs are called by when they began."""
    frames = {
        "sessions": store.sessions_df()[SESSION],
        "runs": store.runs_df()[RUN],
        "messages": store.messages_df()[MESSAGE],
        "tool_calls": store.tool_calls_df()[CALL],
    }
    if not ids:
        runs = store.runs_df()
        names = dict(zip(runs["run_id"], runs["created_at"], strict=True))
        for name in ("run_id", "parent_run_id"):
            frames = {
                key: frame.assign(**{name: frame[name].map(names)}) if name in frame else frame
                for key, frame in frames.items()
            }
    return {
        name: sorted(map(repr, frame.astype(object).where(frame.notna(), None).to_dict("records")))
        for name, frame in frames.items()
    }


def imported(spans, store, folder):
    """Import spans as one file of OTLP/JSON."""
    from google.protobuf.json_format import MessageToJson
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    path = folder / "spans.json"
    path.write_text(MessageToJson(encode_spans(spans)))
    store.ingest(path, progress=False)
    return store
