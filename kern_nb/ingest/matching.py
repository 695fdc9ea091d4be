"""Comparing a draft with the stored runs of a line: how far they agree, and which runs have changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from kern_nb.ingest.importer import Draft, hash_record, run_id_for
from kern_nb.ingest.stored_lines import StoredLines, StoredRun, common_messages


@dataclass(frozen=True)
class Match:
    """How far a draft and a line agree.

    Attributes:
        runs: The number of equal runs at the start.
        messages: The number of equal messages of the next run; only if that is in both.
        changed: The equal runs whose record has changed or grown.
        parts: Whether the draft continues differently than the line.
    """

    runs: int
    messages: int = 0
    changed: tuple[int, ...] = ()
    parts: bool = False


def align(lines: StoredLines, draft: Draft, runs: list[StoredRun], **options: Any) -> tuple[Draft, Match]:
    """Compare a draft with the runs of a line; return it with its runs parted as those are, too."""
    match = _compare(lines, draft, runs, **options)
    is_better = True
    while is_better and match.parts and _ends_inside(draft, match):
        draft = join_runs(draft, match.runs)
        joined = _compare(lines, draft, runs, **options)
        is_better = (joined.runs, joined.messages) > (match.runs, match.messages)
        match = joined
    return draft, match


def n_equal(draft: Draft, match: Match) -> int:
    """The number of messages at the start of a draft that a line has, too."""
    return sum(map(len, draft.keys[: match.runs])) + match.messages


def _compare(
    lines: StoredLines,
    draft: Draft,
    runs: list[StoredRun],
    *,
    corrects: bool = False,
    completes: bool = False,
    exact: bool = False,
    extends: bool = True,
    n_inherited: int = 0,
) -> Match:
    """Compare a draft with the runs of a line.

    Args:
        lines: The stored sessions.
        draft: The draft.
        runs: The runs.
        corrects: Whether a different run of the draft is a correction of the stored one.
        completes: Whether a run of the draft that has all messages of the stored one, and others between them,
            replaces it: a damaged or unfinished version of its file lacked them.
        exact: Whether the line is another session's, which the draft does not continue.
        extends: Whether what follows the end of the line belongs to it.
        n_inherited: The number of runs that the line inherits: these may have grown since the draft was copied.
    """
    changed: list[int] = []
    n_both = min(len(runs), len(draft.runs))
    for i in range(n_both):
        run = runs[i]
        if run.source_hash is not None and run.source_hash == draft.hashes[i]:
            continue
        stored, new = lines.keys_of(run), draft.keys[i]
        if stored is None:
            if run.run_id != run_id_for(draft.session_id, i) or run.source_hash is None:
                return Match(i, 0, tuple(changed), parts=True)
            changed.append(i)  # imported by an older version, which stored no keys
            continue
        n = common_messages(stored, new)
        if n == len(stored) == len(new):
            changed += [] if exact or not run.keys else [i]
        elif n == len(new) and i < n_inherited and _next_key(draft, i) != stored[n]:
            continue
        elif not exact and extends and n == len(stored) and i == len(runs) - 1:
            changed.append(i)
        elif not exact and n == len(new) and i == len(draft.runs) - 1:
            return Match(len(draft.runs), 0, tuple(changed))  # an older copy
        elif _replaces(lines, draft, i, runs, corrects=corrects, completes=completes):
            changed.append(i)
        else:
            return Match(i, n, tuple(changed), parts=True)
    return Match(n_both, 0, tuple(changed), parts=not extends and len(draft.runs) > n_both)


def _replaces(
    lines: StoredLines, draft: Draft, i: int, runs: list[StoredRun], *, corrects: bool, completes: bool
) -> bool:
    """Whether a different version of a run replaces the stored one; see `_compare`."""
    run = runs[i]
    if run.cut is not None or run.session_id != draft.session_id:
        return False
    if corrects:
        return True
    stored, following = lines.keys_of(run) or [], runs[i + 1 : i + 2]
    # It may have a message of the next run: one of the versions is damaged where that begins.
    own = set(draft.keys[i]).difference(stored)
    is_joined = any(not own.isdisjoint(lines.keys_of(other) or ()) for other in following)
    return completes and has_all(draft.keys[i], stored) and not is_joined and not lines.is_cut(run)


def has_lost_content(lines: StoredLines, draft: Draft, i: int, run: StoredRun) -> bool:
    """Whether a message of a run of a draft, whose records have ids, has lost the content that it has in the store."""
    if not draft.has_record_ids:
        return False
    messages = dict(zip(draft.keys[i], draft.runs[i].messages, strict=True))
    stored = zip(run.keys or (), lines.has_content(run), strict=False)
    lost = (messages.get(key) for key, has_content in stored if has_content)
    return any(m is not None and m.content is None and not m.tool_calls for m in lost)


def has_all(new: list[str], stored: list[str]) -> bool:
    """Whether a run has all messages of another version of it, in their order."""
    following = iter(new)
    return all(key in following for key in stored)


def _next_key(draft: Draft, i: int) -> str | None:
    """The key of the message after a run."""
    return draft.keys[i + 1][0] if i + 1 < len(draft.keys) and draft.keys[i + 1] else None


def _ends_inside(draft: Draft, match: Match) -> bool:
    """Whether what a run of a draft has beyond the stored one says nothing, and another run follows it.

    A client may add records to a run after its answer, such as a local command, which a line that goes on from the
    answer lacks.
    """
    i, n = match.runs, match.messages
    if n == 0 or i + 1 >= len(draft.runs):
        return False
    rest = draft.runs[i].messages[n:]
    return not rest or (draft.has_record_ids and all(message.role in ("user", "system") for message in rest))


def join_runs(draft: Draft, i: int) -> Draft:
    """A draft whose run ``i`` begins the next one, so that a branch inherits it as a part of a run."""
    first, second = draft.runs[i], draft.runs[i + 1]
    for message in second.messages:
        for call in message.tool_calls:
            if call.message_index is not None:
                call.message_index += len(first.messages)
    joined = second.model_copy(update={"run_id": first.run_id, "messages": first.messages + second.messages})
    return replace(
        draft,
        runs=[*draft.runs[:i], joined, *draft.runs[i + 2 :]],
        hashes=[*draft.hashes[:i], hash_record(*draft.hashes[i : i + 2]), *draft.hashes[i + 2 :]],
        keys=[*draft.keys[:i], draft.keys[i] + draft.keys[i + 1], *draft.keys[i + 2 :]],
    )
