"""Conversations for the tests of analysis: small runs with tools, made from numbers, so that any two can be told apart."""

from __future__ import annotations

from kern_nb.records import Message, Run, Session, ToolCall, Usage

MESSAGES = 4
"""So many messages has a run that `make_run` makes."""


def make_run(n: int, answer: str = "", args: object = None, **more) -> Run:
    """A question, a tool call, its result and an answer."""
    call = ToolCall(tool_call_id="c1", tool_name=f"tool_{n % 3}", args={"n": n} if args is None else args, result="ok")
    return Run(
        input=f"question {n}",
        output=answer or f"answer {n}",
        messages=[
            Message(role="user", content=f"question {n}"),
            Message(role="assistant", tool_calls=[call], usage=Usage(input_tokens=10, output_tokens=2, cost=0.5)),
            Message(role="tool", tool_call_id="c1", tool_name=call.tool_name, content="ok"),
            Message(
                role="assistant",
                content=answer or f"answer {n}",
                usage=Usage(input_tokens=20, output_tokens=4, cost=0.25),
            ),
        ],
        duration_s=1.5,
        **more,
    )


def save(store, session_id: str, *runs: Run, **fields) -> Session:
    """A session with these runs, stored in one transaction."""
    return store.save_session(Session(session_id=session_id, runs=list(runs), **fields))
