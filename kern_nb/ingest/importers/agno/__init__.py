"""Sessions of Agno 2 and 3: agents, teams and workflows, in SQLite and in PostgreSQL.

A table of sessions may have any name (``session_table``). `tables` has the layouts, `runs` and `messages` the runs.
A run keeps its id. What a run of a team's member or of a workflow's step states, inside another run or as a row, is a
run of its own with ``parent_run_id``. A session that Agno forked is a branch of its source, as far as both have the
same messages; `lines` has forks of single runs. ``metadata``, ``session_data`` and the data of agents, teams and
workflows are as they are stored. Agno states no scores. Of a result that Agno offloaded there is what the model saw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from kern_nb.extra_keys import STEP
from kern_nb.ingest.importer import RECORD_ERRORS, Draft, Membership, error_text, hash_record
from kern_nb.ingest.importers.agno.lines import Line, Member, find_lines, split_members
from kern_nb.ingest.importers.agno.messages import parse_conversation
from kern_nb.ingest.importers.agno.runs import delegating_call, describe_run, step_name
from kern_nb.ingest.importers.agno.tables import Reader, RunRecord, SessionRecord, find_layouts
from kern_nb.ingest.parsing.table_importer import TableImporter
from kern_nb.ingest.parsing.table_rows import AnyConnection, Tables, unused_id
from kern_nb.ingest.parsing.times import parse_time, to_unix_seconds
from kern_nb.ingest.parsing.values import to_object, to_text
from kern_nb.ingest.run_splitter import build_runs
from kern_nb.ingest_report import Problem
from kern_nb.records import Run, Session, SessionType

NAME = "agno"

_OWNERS = ("agent_id", "team_id", "workflow_id")
_OBJECTS = ("session_data", "agent_data", "team_data", "workflow_data", "metadata", "summary")
_TYPES: tuple[SessionType, ...] = get_args(SessionType)


class Agno(TableImporter):
    """Databases of Agno."""

    name = NAME
    reads = "databases of Agno 2 and 3, SQLite and PostgreSQL: agents, teams and workflows"

    def has_layout(self, tables: Tables) -> bool:
        """A table with the columns of its sessions, which has their runs, or another table that has them."""
        return bool(find_layouts(tables))

    def read_tables(
        self, connection: AnyConnection, tables: Tables, *, schema: str | None = None, file: str = "database"
    ) -> Iterator[Draft | Problem]:
        """Yield each session after the one that it is a copy of, its branches, and the runs of members and steps."""
        used: set[str] = set()
        for layout in find_layouts(tables):
            reader = Reader(connection, tables, layout, schema)
            for session_id in reader.session_ids():
                yield from _SessionReader(reader, file, unused_id(session_id, layout.sessions, used)).read(session_id)


@dataclass
class _SessionReader:
    """Makes the drafts of one session.

    Attributes:
        session_id: Its id in the drafts.
        problems: What of it cannot be imported.
        requirements: The run of each of its requirements, by id: the copy of a run repeats those of the run.
    """

    reader: Reader
    file: str
    session_id: str
    problems: dict[str, None] = field(default_factory=dict)
    requirements: dict[str, str] = field(default_factory=dict)

    def read(self, stored_id: str) -> Iterator[Draft | Problem]:
        """Yield the drafts of a session, and its problems."""
        try:
            record = self.reader.load(stored_id)
            source = self.reader.load(record.forked_from) if record.forked_from else None
            self.problems |= dict.fromkeys(record.problems)
            own, members = split_members(record, source)
            sessions: dict[str, str] = {}  # the session of each run
            for line in find_lines(own):
                draft = self._line(record, line)
                sessions = dict.fromkeys((run.run_id for run in line.runs), draft.session_id) | sessions
                yield draft
            for member in members:
                sessions[member.run.run_id] = sessions.get(member.parent.run_id, self.session_id)
                yield self._member(member, sessions[member.run.run_id])
        except RECORD_ERRORS as error:
            self.problems[f"it is not imported: {error_text(error)}"] = None
        for reason in self.problems:
            yield Problem(self.file, None, f"Session {stored_id!r}: {reason.rstrip('.')}.")

    def _line(self, record: SessionRecord, line: Line) -> Draft:
        """The draft of a session's own line or of a branch."""
        fields: dict[str, Any] = {name: to_object(record.row.get(name)) or None for name in _OBJECTS}
        fields |= {name: to_text(record.row.get(name)) for name in (*_OWNERS, "user_id")}
        times = {name: parse_time(record.row.get(name)) for name in ("created_at", "updated_at")}
        fields |= {name: to_unix_seconds(time) for name, time in times.items()}
        session = Session(
            session_id=self.session_id if line.branch is None else f"{self.session_id}~{line.branch.run_id}",
            session_type=_type_of(record.row),
            **fields,
        )
        if line.branch is not None:  # it has no title, state or summary of its own
            created_at = to_unix_seconds(parse_time(line.branch.get("created_at")))
            session.session_data, session.summary = None, None
            session.created_at = created_at or session.created_at
        return self._draft(session, line.runs)

    def _member(self, member: Member, session_id: str) -> Draft:
        """The draft of a run that is part of another one."""
        name = to_text(member.run.data.get("agent_name")) or to_text(member.run.data.get("team_name"))
        session = Session(
            session_id=f"{self.session_id}~{member.run.run_id}",
            session_data={"session_name": name} if name else None,
        )
        call_id = delegating_call(member.run, member.parent)
        membership = Membership(session_id, call_id, member.parent.run_id)
        draft = self._draft(session, [member.run], membership)
        if (step := step_name(member.run.run_id, member.parent.data.get("step_results"))) is not None:
            draft.runs[0].extra[STEP] = step
        return draft

    def _draft(self, session: Session, records: Sequence[RunRecord], membership: Membership | None = None) -> Draft:
        parsed = [parse_conversation(record.data, record.run_id) for record in records]
        runs, hashes, keys = build_runs(session.session_id, [conversation.messages for conversation in parsed])
        for index, (run, record, conversation) in enumerate(zip(runs, records, parsed, strict=True)):
            hashes[index] = hash_record(hashes[index], describe_run(run, record, conversation))
            self.problems |= dict.fromkeys(conversation.problems)
            if membership is None and record.parent_run_id is not None:
                run.extra["parent_run_id"] = record.parent_run_id  # which the session lacks
            self._set_requirements(run, is_member=membership is not None)
        return Draft(
            file=self.file,
            line=lambda: 1,
            session=session,
            runs=runs,
            hashes=hashes,
            keys=keys,
            session_hash=hash_record(session.model_dump(exclude={"runs"})),
            source=NAME,
            has_record_ids=True,
            keeps_run_ids=True,
            membership=membership,
        )

    def _set_requirements(self, run: Run, *, is_member: bool) -> None:
        """Make the requirements of a run its own: a team's run, which a person continues, repeats its members'."""
        own = []
        for requirement in run.requirements:
            if self.requirements.setdefault(requirement.requirement_id, run.run_id) == run.run_id:
                own.append(requirement)
            elif not is_member:
                requirement.requirement_id = f"{run.run_id}:{requirement.requirement_id}"
                own.append(requirement)
        run.requirements = own


def _type_of(row: dict[str, Any]) -> SessionType:
    """Whether a session is that of an agent, a team or a workflow."""
    stated = row.get("session_type")
    if stated in _TYPES:
        return stated  # type: ignore[no-any-return]
    owner = next((name for name in _OWNERS if row.get(name)), _OWNERS[0])
    return owner.removesuffix("_id")  # type: ignore[return-value]
