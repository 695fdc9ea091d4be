"""What is compared or summarized: a session or a run, read as the rows of its frames."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from kern_nb import store_registry
from kern_nb.db import codec
from kern_nb.db.mapping import ANSWERS
from kern_nb.db.reads import NOT_TOLD
from kern_nb.errors import BadUsage
from kern_nb.records import is_parts
from kern_nb.text import formatting

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.db import SessionStore
    from kern_nb.db.reads import Details
    from kern_nb.db.references import Reference
    from kern_nb.records import Run, Session

    Named: TypeAlias = str | Session | Run
    """``chat`` or ``chat/2``; or a session or run as a store gave it."""

    Comparand: TypeAlias = Named | tuple[Named, SessionStore | str]
    """The same, or that with the store it is in."""


_SHOWN = 60
_OF_HASH = 12
_HALF_PAIR = re.compile("[\ud800-\udfff]")


class Call(NamedTuple):
    """A tool call as it is compared.

    Attributes:
        tool_name: The tool.
        args: JSON with sorted keys, so that their order does not matter.
        result: What it returned where no message says that; None where one does, or there is none.
        value: The result as JSON with sorted keys, where it is no text.
        failed: Whether it failed, where no message says that.
    """

    tool_name: str
    args: str
    result: str | None = None
    value: str = ""
    failed: bool = False

    @property
    def same(self) -> tuple[Any, ...]:
        """All that makes it the same as another; the order of keys does not."""
        return self.tool_name, self.args, self.value or self.result, bool(self.value), self.failed


class Turn(NamedTuple):
    """One message of a conversation, as it is compared.

    Attributes:
        place: Where it stands, as a person writes it: ``chat/2.5``; ``chat/2`` where that is no message.
        row: The row it is: its run's id and its index there. What two branches inherit is the same row.
        role: Who speaks.
        tool_name: On a tool's message: the tool.
        text: What is said; empty where only tools are called.
        calls: The tools it calls.
        value: What is said as JSON with sorted keys, where it is no text.
        failed: Whether it says that a call failed.
        partial: Whether it broke off.
    """

    place: str
    row: tuple[str, int]
    role: str
    tool_name: str
    text: str
    calls: tuple[Call, ...]
    value: str = ""
    failed: bool = False
    partial: bool = False

    @property
    def said(self) -> tuple[Any, ...]:
        """All that makes it the same as another: ids, times and the order of keys do not."""
        exact = (self.value or self.text, bool(self.value), self.failed, self.partial)
        return self.role, self.tool_name, *exact, tuple(call.same for call in self.calls)

    @property
    def exact(self) -> str:
        """What is said, spelled so that no two values look alike: text in quotes, its odd characters as escapes."""
        said = self.value or (json.dumps(self.text) if self.text or self.role in ANSWERS else "")
        marks = [*(["(failed)"] if self.failed else []), *(["(broke off)"] if self.partial else [])]
        return " ".join(filter(None, [said, *marks]))

    @property
    def kind(self) -> tuple[Any, ...]:
        """What makes another a version of it: who speaks, and which tools are called."""
        return self.role, self.tool_name, tuple(call.tool_name for call in self.calls)


@dataclass(frozen=True, eq=False)
class Side:
    """A session or a run with all it sees: what it inherits, too.

    Attributes:
        label: What it is called, as a person writes it.
        place: What of which session.
        store: The store it is in.
        runs: One row a run, as ``store.runs_df`` has them; of one run, its members' runs too.
        messages: One row a message, but for copies that a run keeps of what it was told of earlier runs.
        tool_calls: One row a tool call.
        scores: What rates it as a whole: the run where it is one, else the session.
        session: The session's row of ``store.sessions_df``.
        details: What the frames do not tell: values that are no text, and marks.
    """

    label: str
    place: Reference
    store: SessionStore = field(repr=False)
    runs: pd.DataFrame = field(repr=False)
    messages: pd.DataFrame = field(repr=False)
    tool_calls: pd.DataFrame = field(repr=False)
    scores: pd.DataFrame = field(repr=False)
    session: dict[str, Any] = field(repr=False)
    details: Details = field(repr=False)

    @cached_property
    def session_id(self) -> str:
        """Its session, as frames spell it."""
        return spelled(self.place.session_id)

    @cached_property
    def turns(self) -> list[Turn]:
        """Its messages in order; of a run that has none, its input and output.

        Calls that no message made are a turn of their own, before the answer. A file is said as a line of its own.
        Instructions that are told again, unchanged, in a later run are no turn.
        """
        calls = self._calls()
        names = ("run_id", "run_index", "message_index", "role", "tool_name", "content")
        said: dict[str, list[Turn]] = defaultdict(list)
        for run_id, run_index, index, role, tool, content in rows(self.messages, names):
            place, key = f"{self.session_id}/{run_index}.{index}", (run_id, index)
            value = self.details.contents.get(key)
            exact = "null" if value is None and content is None and role in ANSWERS else canonical(value)
            turn = Turn(place, key, role, tool or "", _text(content, value, role), tuple(calls[key]), exact)
            failed, partial = self.details.failed.get(key, False), key in self.details.partial
            said[run_id].append(turn._replace(failed=failed, partial=partial))
        found: list[Turn] = []
        instructions: dict[tuple[str | None, str], str] = {}
        for run in rows(self.runs, _ENDS):
            turns = said.get(run[0]) or self._ends(*run[:4])
            agent_id = run[4]
            turns = [turn for turn in turns if not _is_told_again(turn, instructions, agent_id)]
            if loose := calls.get((run[0], None)):
                place = f"{self.session_id}/{run[1]}"
                turns.insert(_answer(turns), Turn(place, (run[0], -1), "assistant", "", "", tuple(loose)))
            found += turns
        return found

    def _ends(self, run_id: str, run_index: int, asked: str | None, answered: str | None) -> list[Turn]:
        place, values = f"{self.session_id}/{run_index}", self.details.ends.get(run_id, (None, None))
        ends = enumerate(zip(("user", "assistant"), (asked, answered), values, strict=True))
        return [
            Turn(place, (run_id, i), role, "", _text(text, value, role), (), canonical(value))
            for i, (role, text, value) in ends
            if text is not None or value is not None
        ]

    def _calls(self) -> dict[tuple[str, int | None], list[Call]]:
        """The calls of each message, by its run and index; those of no message by their run alone."""
        answers = self.messages[self.messages["role"].isin(ANSWERS)]
        told = set(rows(answers, ("run_id", "tool_call_id")))
        calls: dict[tuple[str, int | None], list[Call]] = defaultdict(list)
        names = ("run_id", "message_index", "tool_name", "args", "tool_call_id", "result", "status")
        for run_id, index, name, args, call_id, result, status in rows(self.tool_calls, names):
            call = Call(name or "", sorted_json(args))
            if (run_id, call_id) not in told:
                value = canonical(self.details.results.get((run_id, call_id)))
                call = call._replace(result=result, value=value, failed=status == "failed")
            calls[run_id, index].append(call)
        return calls


_ENDS = ("run_id", "run_index", "input", "output", "agent_id")


def _is_told_again(turn: Turn, instructions: dict[tuple[str | None, str], str], agent_id: str | None) -> bool:
    """Whether an agent was told just this before; what it is told now is kept in ``instructions``."""
    if turn.role not in NOT_TOLD:
        return False
    before = instructions.get((agent_id, turn.role))
    instructions[agent_id, turn.role] = turn.text
    return before == turn.text


def _text(content: str | None, value: Any, role: str) -> str:
    """What is said, with a line for each file of a content that is made of parts."""
    parts = value if role not in ANSWERS and is_parts(value) else ()
    return "\n".join([*([content] if content else []), *files(parts)])


def canonical(value: Any) -> str:
    """A value that is no text, as JSON with its keys in order; empty for None."""
    if isinstance(value, str):  # one that frames cannot show as it is
        return json.dumps(value)
    return "" if value is None else sorted_json(codec.dumps(value))


def files(content: Sequence[Any]) -> Iterator[str]:
    """The files among the parts of a content, each told from another by its bytes or its address."""
    for part in content:
        if not isinstance(part, dict) or isinstance(part.get("text"), str) or not isinstance(part.get("type"), str):
            continue  # a text, or a record like a row of a table, which is said as JSON
        kind = part.get("media_type") or part["type"]
        sha256 = part.get("sha256")
        if not isinstance(sha256, str):
            sha256 = hashlib.sha256(codec.dumps(part).encode()).hexdigest()
        yield f"[{spelled(formatting.truncate(str(kind), _SHOWN))} {spelled(sha256[:_OF_HASH])}]"


def load(one: Comparand, store: SessionStore | str | None = None) -> Side:
    """The rows of a session or a run.

    Args:
        one: Which; see `Comparand`.
        store: The store it is in, or the name of one; the one in use where None.

    Raises:
        SessionNotFound, RunNotFound, AmbiguousReference: it names nothing, or several things.
        BadUsage: it is a message, or a run that is in no store.
    """
    named, store = one if isinstance(one, tuple) and len(one) == 2 else (one, store)  # noqa: PLR2004 - it and its store
    found = store_registry.find(store)
    place = found.locate(reference_of(named))
    if place.message_index is not None:
        hint = f"Name its run: {place.session_id}/{place.run_index}"
        raise BadUsage(f"{str(place)!r} is a message, not a session or a run.", hint)
    runs = found.runs_df(place.session_id, lineage=True)
    messages = found.messages_df(place.session_id, lineage=True)
    tool_calls = found.tool_calls_df(place.session_id, lineage=True)
    scores = found.scores_df(place.session_id)
    if place.run_index is None:
        scores = scores[scores["run_id"].isna()]
    else:
        run_ids = _with_members(runs, place.run_index)
        runs, messages, tool_calls = (df[df["run_id"].isin(run_ids)] for df in (runs, messages, tool_calls))
        scores = scores[scores["run_id"] == run_ids[0]]
    details = found.details(place.session_id)
    if details.copies:  # frames have those too, and count them nowhere
        messages = messages[[key not in details.copies for key in rows(messages, ("run_id", "message_index"))]]
    session = {str(name): value for name, value in found.sessions_df(place.session_id).iloc[0].items()}
    return Side(spelled(str(place)), place, found, runs, messages, tool_calls, scores, session, details)


def reference_of(named: Named) -> str:
    """The name of a session or a run, as a person writes it.

    Raises:
        BadUsage: it is in no store, or is neither.
    """
    from kern_nb.records import Run, Session

    if isinstance(named, str):
        return named
    if not isinstance(named, (Session, Run)):
        several = isinstance(named, (list, tuple, set))
        hint = "Name them one by one: compare('chat', 'what-if')." if several else "For example: 'chat', or 'chat/2'."
        raise BadUsage(f"{formatting.truncate(repr(named), _SHOWN)} names no session or run.", hint)
    run_index = named.run_index if isinstance(named, Run) else None
    if named.session_id is None or (isinstance(named, Run) and run_index is None):
        raise BadUsage(f"{named!r} is in no store.", "Store it first: store.append_run(session_id, run)")
    return named.session_id if run_index is None else f"{named.session_id}/{run_index}"


def _with_members(runs: pd.DataFrame, run_index: int) -> list[str]:
    """The ids of a run and of its members' runs, at every depth; its own first."""
    members: dict[str | None, list[str]] = defaultdict(list)
    found: list[str] = []
    for run_id, index, parent in rows(runs, ("run_id", "run_index", "parent_run_id")):
        members[parent].append(run_id)
        found += [run_id] if index == run_index else []
    for run_id in found:  # grows while it is read
        found += [member for member in members[run_id] if member not in found]
    return found


def _answer(turns: Sequence[Turn]) -> int:
    """The place of a run's last turn, where that is not a user's; else the end."""
    return len(turns) - 1 if turns and turns[-1].role != "user" else len(turns)


def rows(df: pd.DataFrame, names: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    """The rows of some columns as Python values, None where one is missing."""
    columns = [df[name].astype(object).where(df[name].notna(), None).tolist() for name in names]
    return zip(*columns, strict=True)


def spelled(text: str) -> str:
    """Text as frames have it: they hold no half of a surrogate pair."""
    from kern_nb.db.dtypes import shown

    return shown(text)


def sorted_json(text: str | None) -> str:
    """JSON with its keys in order and no spaces, half surrogate pairs as escapes; text that is no JSON as it is."""
    if not text:
        return ""
    try:
        made = json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
    return _HALF_PAIR.sub(lambda found: f"\\u{ord(found[0]):04x}", made)
