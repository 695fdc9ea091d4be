"""The verbs as data: the parser, the help, Tab and `docs/magics.md` are made from it. A new verb is a new entry.

What a verb calls is in `verbs`; how a line is read is in `parsing`.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kern_nb.notebook import verbs
from kern_nb.notebook.kinds import FRAMES, STATUSES, one_of


@dataclass(frozen=True, eq=False)
class Argument:
    """An argument of a verb.

    Attributes:
        flag: Its name, or its flag.
        value: What stands for its value in the usage; empty where it takes none.
        help: What it means.
        offers: What Tab offers for it: a name in `offers.OFFERS`.
        settings: What else `argparse` is told.
    """

    flag: str
    value: str
    help: str
    offers: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_option(self) -> bool:
        """Whether it is written with a flag."""
        return self.flag.startswith("-")

    @property
    def written(self) -> str:
        """The argument as a usage line has it."""
        value = self.value + ("..." if "nargs" in self.settings else "")
        return f"{self.flag} {value}".rstrip() if self.is_option else value


@dataclass(frozen=True, eq=False)
class Verb:
    """A verb of `%kern`, or a magic of its own.

    Attributes:
        name: The verb.
        summary: What it does, in a line.
        call: What it calls with the parsed arguments; its value is the value of the magic.
        example: A line as one would write it.
        python: The same in Python.
        arguments: What may follow it.
        more: What else is to be known.
        prefix: What stands before its name.
    """

    name: str
    summary: str
    call: Callable[[Namespace], object]
    example: str
    python: str
    arguments: tuple[Argument, ...] = ()
    more: str = ""
    prefix: str = "%kern "

    @property
    def command(self) -> str:
        """The verb as one writes it."""
        return self.prefix + self.name

    @property
    def usage(self) -> str:
        """The command with all it takes."""
        options = [f"[{a.written}]" for a in self.arguments if a.is_option]
        return " ".join([self.command, *(a.written for a in self.arguments if not a.is_option), *options])


def _arg(flag: str, value: str, help: str, offers: str = "", **settings: Any) -> Argument:
    return Argument(flag, value, help, offers, settings)


def _flag(flag: str, help: str) -> Argument:
    return Argument(flag, "", help)


_STORE = _arg("--store", "NAME", "Another attached store than the one in use.", "stores")
_USER = _arg("--user", "USER", "Those of one user.")
_AGENT = _arg("--agent", "AGENT", "Those of one agent.")
_NAME = _arg("name", "NAME", "The name of the store.", "stores")

VERBS: tuple[Verb, ...] = (
    Verb(
        "attach",
        "Open a store, give it a name and use it.",
        verbs.attach,
        example="%kern attach sessions.duckdb --as prod --read-only",
        python='kern_nb.attach("sessions.duckdb", name="prod", read_only=True)',
        arguments=(
            _arg("target", "TARGET", "A .duckdb, .db or .sqlite file, a database URL, or :memory:.", "paths"),
            _arg("--as", "NAME", "Its name here; else the file's stem or the database's name.", dest="name"),
            _flag("--read-only", "Refuse writes."),
            _arg("--table", "SESSION_TABLE", "The name of the sessions' table.", default="agno_sessions"),
        ),
        more="Nothing is written by attaching: a new path becomes a file at the first write. The store that was"
        " attached last is the one in use.",
    ),
    Verb(
        "stores",
        "List the attached stores, passwords masked.",
        verbs.stores,
        example="%kern stores",
        python="kern_nb.stores()",
    ),
    Verb(
        "use",
        "Make an attached store the one in use.",
        verbs.use,
        example="%kern use prod",
        python='kern_nb.use("prod")',
        arguments=(_NAME,),
    ),
    Verb(
        "detach",
        "Close a store and forget its name.",
        verbs.detach,
        example="%kern detach prod",
        python='kern_nb.detach("prod")',
        arguments=(_NAME,),
        more="The file stays as it is; a store in memory is gone. No other store comes in use by itself.",
    ),
    Verb(
        "import",
        "Take in recorded sessions from files or folders.",
        verbs.import_,
        example="%kern import results/ more/*.json --format tau2",
        python='store.ingest("results/", format="tau2")',
        arguments=(
            _arg("path", "PATH", "A file, a folder, or a pattern like *.json.", "paths", nargs="+"),
            _arg("--format", "FORMAT", "The importer; recognised by the content where left out.", "formats"),
            _STORE,
        ),
        more="Importing the same again changes nothing.",
    ),
    Verb(
        "sessions",
        "List the newest sessions.",
        verbs.sessions,
        example="%kern sessions --user alice --last 20",
        python='kern_nb.sessions(user_id="alice", last=20)',
        arguments=(
            _USER,
            _AGENT,
            _arg("--last", "N", "How many; 50 where left out.", type=int, default=50),
            _arg("--name", "PART", "Those with this in their title."),
            _arg(
                "--status",
                "STATUS",
                "Those whose latest run has this status.",
                "statuses",
                type=one_of("status", STATUSES, str.upper),
            ),
            _STORE,
        ),
        more="The result has `.df`, the DataFrame.",
    ),
    Verb(
        "load",
        "Load sessions, runs, messages, tool calls or scores as a DataFrame.",
        verbs.load,
        example="df = %kern load messages --session conversation_123 --since 2026-11-01",
        python='store.messages_df("conversation_123", since="2026-11-01")',
        arguments=(
            _arg("frame", "|".join(FRAMES), "What to load.", "frames", type=one_of("frame", FRAMES)),
            _arg("--session", "REF", "One session, by its id or a unique prefix of it.", "sessions"),
            _USER,
            _AGENT,
            _arg("--since", "TIME", "Created then or later; 2026-11-20 or 2026-11-20T14:30, in UTC."),
            _arg("--until", "TIME", "Created before then."),
            _arg("--limit", "N", "The first so many rows.", type=int),
            _flag("--lineage", "With --session: what a branch inherits, too."),
            _STORE,
        ),
    ),
    Verb(
        "show",
        "Show the transcript of a session or a run.",
        verbs.show,
        example="%kern show conversation_123/2",
        python='kern_nb.show("conversation_123/2")',
        arguments=(
            _arg(
                "ref",
                "REF",
                "`chat` is the session, `chat/2` its run 2, `chat/2.5` the same from message 5.",
                "references",
            ),
            _STORE,
        ),
        more="The result has `.messages` and `.tool_calls`, two DataFrames.",
    ),
    Verb(
        "branch",
        "Branch a session at its end, or at a run or message of it. No row is copied.",
        verbs.branch,
        example="%kern branch conversation_123/0 --as what-if",
        python='store.branch("conversation_123", after=0, name="what-if", new_session_id="what-if")',
        arguments=(
            _arg(
                "ref", "REF", "`chat` is its end, `chat/2` after run 2, `chat/2.5` after message 5 of it.", "references"
            ),
            _arg("--as", "NAME", "The new session's id and title; an id is made up where left out.", dest="name"),
            _flag("--before", "Branch before that run or message, not after it."),
            _STORE,
        ),
        more="The value is the new session. Nothing else changes: go on in it by its id.",
    ),
    Verb(
        "check",
        "Look for broken rows: interrupted runs, lost parents, gaps.",
        verbs.check,
        example="%kern check --repair",
        python="store.check(repair=True)",
        arguments=(_flag("--repair", "Mend what can be mended without guessing."), _STORE),
    ),
)

SQL = Verb(
    "kern_sql",
    "Run one reading SELECT over the views " + ", ".join((*FRAMES, "requirements")) + ".",
    verbs.sql,
    example="%%kern_sql --into tools\nSELECT tool_name, count(*) FROM tool_calls WHERE session_id = $chat GROUP BY 1",
    python='tools = store.sql("SELECT ... WHERE session_id = $chat ...", {"chat": chat})',
    arguments=(
        _arg("--into", "NAME", "The variable that takes the DataFrame; nothing is shown then."),
        _STORE,
    ),
    more="The SQL is the rest of the cell, in the dialect of the store's engine. `$name` takes the value of the Python"
    " variable of that name as a parameter, never as text. On one line: `df = %kern_sql SELECT ...`.",
    prefix="%%",
)


def reference() -> str:
    """The Markdown reference of all verbs, as it stands in `docs/magics.md`."""
    from kern_nb.notebook import manual

    return manual.reference()
