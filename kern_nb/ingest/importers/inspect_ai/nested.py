"""The nested agents of an inspect_ai sample: threads of model calls that are no part of its messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kern_nb.ingest.importer import Draft, MalformedRecord, Membership, hash_record
from kern_nb.ingest.importers.inspect_ai.events import ModelCall, SampleEvents, merge_inputs, message_key
from kern_nb.ingest.importers.inspect_ai.messages import Answers, parse_message
from kern_nb.ingest.parsing.times import to_unix_seconds
from kern_nb.ingest.parsing.values import to_id, to_list, to_object
from kern_nb.ingest.run_splitter import split_runs
from kern_nb.records import Run, Session


def set_provider(runs: list[Run], hashes: list[str], model: str | None) -> None:
    """Set the provider, which names of models begin with."""
    for index, run in enumerate(runs):
        name = run.model if run.model and "/" in run.model else model
        run.model_provider = name.split("/")[0] if name and "/" in name else None
        hashes[index] = hash_record(hashes[index], run.model_provider)


def nested_drafts(
    main: Draft,
    transcript: SampleEvents,
    calls: list[ModelCall],
    inherited: frozenset[str],
    report: Callable[[str], object],
) -> Iterator[Draft]:
    """Yield a draft per thread of model calls that is no part of the sample's messages, without those it inherited."""
    threads: dict[str, list[ModelCall]] = {}
    for call in calls:
        if call.output is not None or call.usage is not None:
            threads.setdefault(call.thread, []).append(call)
    model = (main.session.metadata or {}).get("model")
    model = model if isinstance(model, str) else None
    order = {id(call): index for index, call in enumerate(transcript.calls)}
    owners = _call_owners(main, threads)
    for thread, members in sorted(threads.items(), key=lambda item: len(item[1][0].outer)):  # parents first
        members.sort(key=lambda call: order[id(call)])
        answers = Answers(members)
        parsed = []
        for message, _ in merge_inputs(members, [call.output for call in members if call.output is not None]):
            if message_key(message) in inherited:
                continue
            try:
                parsed.append(parse_message(message, answers.take(message), transcript, model))
            except MalformedRecord as error:
                report(f"has a message that is not imported: {error}")
        session_id = f"{main.session_id}/{thread or 'calls'}"
        runs, hashes, keys = split_runs(session_id, parsed, main.runs[0].model if main.runs else None)
        set_provider(runs, hashes, model)
        call_id = members[0].tool_call_id
        callers = owners.get(call_id or "", set()) - {thread}
        outer = [*(callers if len(callers) == 1 else ()), *members[0].outer, None]
        parent = next(name for name in outer if name in threads or name is None)
        times = [run.created_at for run in runs if run.created_at]
        yield Draft(
            file=main.file,
            line=main.line,
            session=Session(
                session_id=session_id,
                agent_id=main.session.agent_id,
                metadata=main.session.metadata,
                created_at=to_unix_seconds(min(times, default=None)),
            ),
            runs=runs,
            hashes=hashes,
            keys=keys,
            session_hash=hash_record(main.session_hash, thread),
            source=main.source,
            membership=Membership(
                main.session_id if parent is None else f"{main.session_id}/{parent or 'calls'}",
                call_id if callers == {parent} else None,  # ids may repeat
            ),
        )


def _call_owners(main: Draft, threads: dict[str, list[ModelCall]]) -> dict[str, set[str | None]]:
    """The threads that have a call of a tool, by its id; None for the sample's messages."""
    owners: dict[str, set[str | None]] = {}
    for message in (message for run in main.runs for message in run.messages):
        for call in message.tool_calls:
            owners.setdefault(call.tool_call_id or "", set()).add(None)
    for thread, members in threads.items():
        for model_call in members:
            for record in to_list(to_object(model_call.output).get("tool_calls")):
                owners.setdefault(to_id(to_object(record).get("id")) or "", set()).add(thread)
    return owners
