"""Digests and summaries with hostile texts in every rendered field."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

from hostile import HOSTILE, MEGABYTE

from kern_nb.analysis.digest import Digest, digest
from kern_nb.db import InMemoryDb
from kern_nb.operations.summarize import Summaries
from kern_nb.records import Message, Run, Session, SessionSummary, ToolCall, Usage

BAD = HOSTILE["script"]
START = datetime(2026, 11, 20, 19, 0, tzinfo=UTC)


def _run(n: int, session: str, **fields: object) -> Run:
    """A run with a hostile question, tool, result, model and answer."""
    calls = [
        ToolCall(tool_call_id="1", tool_name=BAD, args={BAD: MEGABYTE}, result=MEGABYTE, duration_s=n),
        ToolCall(tool_call_id="2", tool_name=HOSTILE["override"], result=BAD, status="failed"),
        ToolCall(tool_call_id="3", tool_name=MEGABYTE, status="unknown"),
        ToolCall(tool_call_id="4", tool_name=BAD, caller="user", result="x"),
    ]
    messages = [
        Message(role="user", content=MEGABYTE, created_at=START),
        Message(role="assistant", model=BAD, tool_calls=calls, created_at=START + timedelta(seconds=2)),
        Message(role="tool", tool_call_id="2", content=BAD, created_at=START + timedelta(seconds=65)),
        Message(role="assistant", model=HOSTILE["nul"], content=BAD, created_at=START + timedelta(seconds=66)),
    ]
    return Run(
        run_id=f"{session} {n}",
        **{"input": HOSTILE["quotes"], "output": MEGABYTE, "usage": Usage(input_tokens=10 * n, cost=0.001)} | fields,
        messages=messages,
        tool_calls=calls,
        duration_s=n,
    )


@cache
def hostile_digest(*, several: bool | str = False) -> Digest:
    """Of a session of two runs, or of it beside many more, one of them far from the rest."""
    session_id = f"chat {BAD}"
    with InMemoryDb() as store:
        failed = {"status": "ERROR", "error": HOSTILE["lines"], "output": HOSTILE["override"], "input": BAD}
        runs = [_run(1, "0"), _run(2, "0", **failed)]
        store.save_session(Session(session_id=session_id, runs=runs, created_at=1_795_000_000))
        store.add_score(session_id, BAD, 0.5)
        if not several:
            return digest(session_id, store=store)
        for n, text in enumerate([*HOSTILE.values(), MEGABYTE[:600], "more", "last"]):
            one = f"{n:02} {text[:300]}"
            runs = [Run(run_id=f"r{n}", input=text, output=text, usage=Usage(input_tokens=1 if n else 9_999))]
            store.save_session(Session(session_id=one, runs=runs, metadata={"what": BAD}, created_at=1_795_000_001 + n))
        return digest(where={"what": BAD}, store=store) if several == "fitting" else digest(*_all(store), store=store)


def _all(store: InMemoryDb) -> list[str]:
    ids = [session.session_id for session in store.list_sessions()][::-1]
    return [*ids, f"{ids[0]}/1"]


@cache
def empty_digest() -> Digest:
    """Of a session that nothing was said in."""
    with InMemoryDb() as store:
        store.save_session(Session(session_id="new", created_at=0))
        return digest("new", store=store)


def summary(**fields: object) -> SessionSummary:
    """A summary of hostile text, topics and origin."""
    given = {"session_id": f"chat {BAD}", "updated_at": START, "model": HOSTILE["override"], "last_run_index": 7}
    topics = [BAD, HOSTILE["nul"], MEGABYTE]
    return SessionSummary(summary="\n".join([*HOSTILE.values(), MEGABYTE]), topics=topics, **given | fields)


def summaries() -> Summaries:
    """Of several, and of one that nothing was said in."""
    short = {"summary": HOSTILE["quotes"]}
    each = (
        summary(runs_since=0).model_copy(update=short),
        summary(run_index=2, last_run_index=None).model_copy(update=short | {"topics": []}),
        SessionSummary(session_id=HOSTILE["override"], summary=HOSTILE["lines"], runs_since=3, last_run_index=0),
        SessionSummary(session_id=HOSTILE["nul"], summary=HOSTILE["closing"]),
    )
    return Summaries(HOSTILE["closing"], (BAD,), each, (HOSTILE["override"], BAD), BAD)


CASES = {
    "digest": lambda: hostile_digest()._repr_html_(),
    "digest-empty": lambda: empty_digest()._repr_html_(),
    "digest-fitting": lambda: hostile_digest(several="fitting")._repr_html_(),
    "digest-many": lambda: hostile_digest(several=True)._repr_html_(),
    "summaries": lambda: summaries()._repr_html_(),
    "summary": lambda: summary()._repr_html_(),
}
