"""Conversations: a session or a run with its rows, and its messages in a comparable form."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import pandas as pd

from kern_nb import store_registry
from kern_nb.analysis.dataframe import iter_rows
from kern_nb.analysis.selection import format_reference, require_session_or_run, with_descendants
from kern_nb.control_characters import LONE_SURROGATE, replace_surrogates
from kern_nb.db import codec
from kern_nb.db.reads import INSTRUCTION_ROLES
from kern_nb.records import RESULT_ROLES, is_parts
from kern_nb.text import formatting

if TYPE_CHECKING:
    from kern_nb.analysis.selection import ReferenceLike
    from kern_nb.db import SessionStore
    from kern_nb.db.reads import Details
    from kern_nb.db.references import Reference

    Comparand: TypeAlias = ReferenceLike | tuple[ReferenceLike, SessionStore | str]
    """A session or run, or a pair of it and its store."""


class Call(NamedTuple):
    """A tool call in a comparable form.

    Attributes:
        tool_name: The tool.
        args: JSON with sorted keys.
        result: The result where no message has it; None where one does, or there is no result.
        value: The result as JSON with sorted keys, where it is not text.
        failed: Whether it failed, where no message has that.
    """

    tool_name: str
    args: str
    result: str | None = None
    value: str = ""
    failed: bool = False

    @property
    def key(self) -> tuple[Any, ...]:
        """What equal calls have in common."""
        return self.tool_name, self.args, self.value or self.result, bool(self.value), self.failed


class Turn(NamedTuple):
    """A message in a comparable form.

    Attributes:
        reference: The message's reference, ``chat/2.5``; ``chat/2`` where the turn is not a message.
        row: The run's id and the index in it. Messages that two branches inherit are the same row.
        role: The role.
        tool_name: The tool, on a tool's message.
        text: The text; empty where the message only calls tools.
        calls: The tool calls.
        value: The content as JSON with sorted keys, where it is not text.
        failed: Whether the message reports a failed call.
        partial: Whether the message is incomplete.
    """

    reference: str
    row: tuple[str, int]
    role: str
    tool_name: str
    text: str
    calls: tuple[Call, ...]
    value: str = ""
    failed: bool = False
    partial: bool = False

    @property
    def key(self) -> tuple[Any, ...]:
        """What equal turns have in common: not ids, times or the order of JSON keys."""
        content = (self.value or self.text, bool(self.value), self.failed, self.partial)
        return self.role, self.tool_name, *content, tuple(call.key for call in self.calls)

    @property
    def literal(self) -> str:
        """The content in a form that differs for different content: text in quotes, with escapes."""
        content = self.value or (json.dumps(self.text) if self.text or self.role in RESULT_ROLES else "")
        marks = ("(failed)" if self.failed else "", "(partial)" if self.partial else "")
        return " ".join(filter(None, [content, *marks]))

    @property
    def kind(self) -> tuple[Any, ...]:
        """What two versions of a turn have in common: the role, and the tools called."""
        return self.role, self.tool_name, tuple(call.tool_name for call in self.calls)


@dataclass(frozen=True, eq=False)
class Conversation:
    """A session or a run with its rows, inherited ones included.

    Attributes:
        label: The display name.
        reference: The session or run.
        store: Its store.
        runs: One row a run, as in ``store.runs_df``; of one run, its members' runs too.
        messages: One row a message, without copies of earlier runs' messages.
        tool_calls: One row a tool call.
        scores: The scores of the run, or of the session as a whole.
        session: The session's row of ``store.sessions_df``.
        details: What the frames lack: values that are not text, and marks.
    """

    label: str
    reference: Reference
    store: SessionStore = field(repr=False)
    runs: pd.DataFrame = field(repr=False)
    messages: pd.DataFrame = field(repr=False)
    tool_calls: pd.DataFrame = field(repr=False)
    scores: pd.DataFrame = field(repr=False)
    session: dict[str, Any] = field(repr=False)
    details: Details = field(repr=False)

    @cached_property
    def session_id(self) -> str:
        """The session's id as frames hold it."""
        return replace_surrogates(self.reference.session_id)

    @cached_property
    def turns(self) -> list[Turn]:
        """The messages in order; of a run without messages, its input and output.

        Calls without a message form a turn of their own, before the answer. A file is a line of text. Instructions that
        a later run repeats unchanged are left out.
        """
        calls = self._calls()
        names = ("run_id", "run_index", "message_index", "role", "tool_name", "content")
        by_run: dict[str, list[Turn]] = defaultdict(list)
        for run_id, run_index, index, role, tool, content in iter_rows(self.messages, names):
            key = (run_id, index)
            raw = self.details.contents.get(key)
            by_run[run_id].append(
                Turn(
                    reference=f"{self.session_id}/{run_index}.{index}",
                    row=key,
                    role=role,
                    tool_name=tool or "",
                    text=_text(content, raw, role),
                    calls=tuple(calls[key]),
                    value="null" if raw is None and content is None and role in RESULT_ROLES else canonical_json(raw),
                    failed=self.details.failed.get(key, False),
                    partial=key in self.details.partial,
                )
            )
        turns: list[Turn] = []
        instructions: dict[tuple[str | None, str], str] = {}
        columns = ("run_id", "run_index", "input", "output", "agent_id")
        for run_id, run_index, run_input, output, agent_id in iter_rows(self.runs, columns):
            reference = f"{self.session_id}/{run_index}"
            run_turns = []
            for turn in by_run.get(run_id) or self._input_and_output(run_id, reference, run_input, output):
                if turn.role in INSTRUCTION_ROLES:
                    if instructions.get((agent_id, turn.role)) == turn.text:
                        continue
                    instructions[agent_id, turn.role] = turn.text
                run_turns.append(turn)
            if unattached := calls.get((run_id, None)):
                turn = Turn(reference, (run_id, -1), "assistant", "", "", tuple(unattached))
                is_answered = bool(run_turns) and run_turns[-1].role != "user"
                run_turns.insert(len(run_turns) - is_answered, turn)
            turns += run_turns
        return turns

    def _input_and_output(self, run_id: str, reference: str, run_input: str | None, output: str | None) -> list[Turn]:
        raw = self.details.ends.get(run_id, (None, None))
        ends = enumerate(zip(("user", "assistant"), (run_input, output), raw, strict=True))
        return [
            Turn(reference, (run_id, i), role, "", _text(text, value, role), (), canonical_json(value))
            for i, (role, text, value) in ends
            if text is not None or value is not None
        ]

    def _calls(self) -> dict[tuple[str, int | None], list[Call]]:
        """Return the calls by run and message index; the index is None where no message has the call."""
        answers = self.messages[self.messages["role"].isin(RESULT_ROLES)]
        answered = set(iter_rows(answers, ("run_id", "tool_call_id")))
        calls: dict[tuple[str, int | None], list[Call]] = defaultdict(list)
        names = ("run_id", "message_index", "tool_name", "args", "tool_call_id", "result", "status")
        for run_id, index, name, args, call_id, result, status in iter_rows(self.tool_calls, names):
            call = Call(name or "", sort_json(args))
            if (run_id, call_id) not in answered:
                value = canonical_json(self.details.results.get((run_id, call_id)))
                call = call._replace(result=result, value=value, failed=status == "failed")
            calls[run_id, index].append(call)
        return calls


def _text(content: str | None, value: Any, role: str) -> str:
    """Return the text of a content, with a line for each file in it, identified by its hash or address."""
    lines = [content] if content else []
    for part in value if role not in RESULT_ROLES and is_parts(value) else ():
        if not isinstance(part, dict) or isinstance(part.get("text"), str) or not isinstance(part.get("type"), str):
            continue  # text, or a record such as a table's row, which is compared as JSON
        kind = formatting.truncate(str(part.get("media_type") or part["type"]), 60)
        sha256 = part.get("sha256")
        if not isinstance(sha256, str):
            sha256 = hashlib.sha256(codec.dumps(part).encode()).hexdigest()
        lines.append(replace_surrogates(f"[{kind} {sha256[:12]}]"))
    return "\n".join(lines)


def canonical_json(value: Any) -> str:
    """Return a value as JSON with sorted keys; empty for None."""
    if isinstance(value, str):  # text that frames cannot hold
        return json.dumps(value)
    return "" if value is None else sort_json(codec.dumps(value))


def load_conversation(source: Comparand, store: SessionStore | str | None = None) -> Conversation:
    """Read the rows of a session or a run.

    Raises:
        SessionNotFound: No session matches.
        RunNotFound: The session has no such run.
        AmbiguousReference: Several sessions match.
        BadUsage: The reference is to a message, or to a run that is not stored.
    """
    if isinstance(source, tuple) and len(source) == 2:  # noqa: PLR2004 - a reference and its store
        reference_like, store = source
    else:
        reference_like = source
    store = store_registry.find(store)
    reference = require_session_or_run(store.locate(format_reference(reference_like)))
    session_id = reference.session_id
    runs = store.runs_df(session_id, lineage=True)
    messages = store.messages_df(session_id, lineage=True)
    tool_calls = store.tool_calls_df(session_id, lineage=True)
    scores = store.scores_df(session_id)
    if reference.run_index is None:
        scores = scores[scores["run_id"].isna()]
    else:
        run_ids = RunTree(runs).member_ids(reference.run_index)
        runs, messages, tool_calls = (df[df["run_id"].isin(run_ids)] for df in (runs, messages, tool_calls))
        scores = scores[scores["run_id"] == run_ids[0]]
    details = store.details(session_id)
    if details.copies:  # the frames have them too, but no total counts them
        messages = messages[[key not in details.copies for key in iter_rows(messages, ("run_id", "message_index"))]]
    session = {str(name): value for name, value in store.sessions_df(session_id).iloc[0].items()}
    label = replace_surrogates(str(reference))
    return Conversation(label, reference, store, runs, messages, tool_calls, scores, session, details)


class RunTree:
    """The runs of a session, and the members' runs of each."""

    def __init__(self, runs: pd.DataFrame) -> None:
        self.by_index: dict[int, str] = {}
        self._members: dict[str | None, list[str]] = defaultdict(list)
        for run_id, index, parent_id in iter_rows(runs, ("run_id", "run_index", "parent_run_id")):
            self.by_index[index] = run_id
            self._members[parent_id].append(run_id)

    def member_ids(self, run_index: int) -> list[str]:
        """Return the ids of a run and of its members' runs at every depth, its own first."""
        return with_descendants([self.by_index[run_index]], self._members)


def sort_json(text: str | None) -> str:
    """Return JSON with sorted keys and no spaces, lone surrogates as escapes; other text unchanged."""
    if not text:
        return ""
    try:
        compact = json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text
    return LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", compact)
