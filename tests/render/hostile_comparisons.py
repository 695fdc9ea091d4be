"""Comparisons with hostile texts in every rendered field."""

from __future__ import annotations

from hostile import HOSTILE, MEGABYTE

from kern_nb.analysis.compare import Comparison, compare
from kern_nb.db import InMemoryDb
from kern_nb.records import Message, Run, Session, ToolCall

BAD = HOSTILE["script"]


def _run(answers: list[str], args: object, role: str) -> Run:
    call = ToolCall(tool_call_id="1", tool_name=BAD, args=args, status="failed", result=BAD)
    said = [Message(role="user", content=text) for text in answers]
    return Run(
        input=BAD, messages=[*said, Message(role="assistant", tool_calls=[call]), Message(role=role, content=BAD)]
    )


def hostile_comparison(*, contenders: int = 1) -> Comparison:
    """A comparison of hostile sessions, in memory; of several contenders, each says less."""
    texts = list(HOSTILE.values())[: 10 // contenders**2]
    with InMemoryDb() as store:
        store.save_session(Session(session_id=f"a{BAD}", runs=[_run(texts, {BAD: BAD}, "assistant")]))
        store.add_score(f"a{BAD}", HOSTILE["quotes"], 0.5)
        names = [f"a{BAD}"]
        for n in range(contenders):
            answers = [f"{text} and {n} more" for text in texts]
            runs = [_run([answers[0], *answers[2:], MEGABYTE], [n, HOSTILE["nul"]], HOSTILE["override"])]
            names.append(f"b{n}{HOSTILE['quotes']}")
            store.save_session(Session(session_id=names[-1], runs=runs))
            store.add_score(names[-1], HOSTILE["quotes"], 0.75)
        found = compare(*names, store=store)
        found.pairs  # noqa: B018 - read while the store is open
        return found


def alike() -> Comparison:
    """Two that say the same."""
    with InMemoryDb() as store:
        for name in "ab":
            store.append_run(name, Run(input="hi", output="hello"))
        return compare("a", "b", store=store)


CASES = {
    "comparison": lambda: hostile_comparison()._repr_html_(),
    "comparison-alike": lambda: alike()._repr_html_(),
    "comparison-of-three": lambda: hostile_comparison(contenders=2)._repr_html_(),
}
