"""The verbs as data. The parser, the help, Tab and `docs/magics.md` are made from this table: a new verb is a new entry.

What a verb calls is in `verbs`; how a line is read is in `parsing`.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kern_nb.notebook import verbs
from kern_nb.notebook.kinds import FRAMES, STATUSES, one_of

STORE_HELP = "Another attached store than the one in use."


@dataclass(frozen=True)
class Argument:
    """An argument of a verb.

    Attributes:
        flags: Its name, or its flags.
        help: What it means.
        offers: What Tab offers for it: a key of `completer.OFFERS`.
        settings: What else `argparse` is told.
    """

    flags: tuple[str, ...]
    help: str
    offers: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_option(self) -> bool:
        """Whether it is written with a flag."""
        return self.flags[0].startswith("-")

    @property
    def takes_value(self) -> bool:
        """Whether a value follows its flag."""
        return "action" not in self.settings


@dataclass(frozen=True)
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


def _arg(*flags: str, help: str, offers: str = "", **settings: Any) -> Argument:
    return Argument(flags, help, offers, settings)


_STORE = _arg("--store", help=STORE_HELP, offers="stores", metavar="NAME")
_USER = _arg("--user", help="Those of one user.", metavar="USER")
_AGENT = _arg("--agent", help="Those of one agent.", metavar="AGENT")

VERBS: tuple[Verb, ...] = (
    Verb(
        "attach",
        "Open a store, give it a name and use it.",
        verbs.attach,
        "%kern attach sessions.duckdb --as prod --read-only",
        'kern_nb.attach("sessions.duckdb", name="prod", read_only=True)',
        (
            _arg("target", help="A path (.duckdb; .db or .sqlite), a database URL, or :memory:.", offers="paths", metavar="TARGET"),
            _arg("--as", help="Its name here; else the file's stem or the database's name.", dest="name", metavar="NAME"),
            _arg("--read-only", help="Refuse writes.", action="store_true"),
            _arg("--table", help="The name of the sessions' table.", default="agno_sessions", metavar="SESSION_TABLE"),
        ),
        "Nothing is written by attaching: a new path becomes a file at the first write. The store attached last is the one"
        " in use.",
    ),
    Verb(
        "stores",
        "List the attached stores, passwords masked.",
        verbs.stores,
        "%kern stores",
        "kern_nb.stores()",
    ),
    Verb(
        "use",
        "Make an attached store the one in use.",
        verbs.use,
        "%kern use prod",
        'kern_nb.use("prod")',
        (_arg("name", help="The name of the store.", offers="stores", metavar="NAME"),),
    ),
    Verb(
        "detach",
        "Close a store and forget its name.",
        verbs.detach,
        "%kern detach prod",
        'kern_nb.detach("prod")',
        (_arg("name", help="The name of the store.", offers="stores", metavar="NAME"),),
        "The file stays as it is; a store in memory is gone. No other store comes in use by itself.",
    ),
    Verb(
        "import",
        "Take in recorded sessions from files or folders.",
        verbs.import_,
        "%kern import results/ more/*.json --format tau2",
        'store.ingest("results/", format="tau2")',
        (
            _arg("path", help="A file, a folder of them, or a pattern like *.json.", offers="paths", metavar="PATH", nargs="+"),
            _arg("--format", help="The importer; recognised by the content where left out.", offers="formats", metavar="FORMAT"),
            _STORE,
        ),
        "Importing the same again changes nothing: it is told as skipped.",
    ),
    Verb(
        "sessions",
        "List the newest sessions.",
        verbs.sessions,
        "%kern sessions --user alice --last 20",
        'kern_nb.sessions(user_id="alice", last=20)',
        (
            _USER,
            _AGENT,
            _arg("--last", help="How many; 50 where left out.", type=int, default=50, metavar="N"),
            _arg("--name", help="Those with this in their title.", metavar="PART"),
            _arg(
                "--status",
                help="Those whose latest run has this status.",
                offers="statuses",
                type=one_of("status", STATUSES, str.upper),
                metavar="STATUS",
            ),
            _STORE,
        ),
        "The result has `.df`, the DataFrame.",
    ),
    Verb(
        "load",
        "Load sessions, runs, messages, tool calls or scores as a DataFrame.",
        verbs.load,
        "df = %kern load messages --session conversation_123 --since 2026-11-01",
        'store.messages_df("conversation_123", since="2026-11-01")',
        (
            _arg("frame", help="What to load.", offers="frames", type=one_of("frame", FRAMES), metavar="|".join(FRAMES)),
            _arg("--session", help="One session, by its id or a unique prefix of it.", offers="sessions", metavar="REF"),
            _USER,
            _AGENT,
            _arg("--since", help="Created then or later; 2026-11-20 or 2026-11-20T14:30, in UTC.", metavar="TIME"),
            _arg("--until", help="Created before then.", metavar="TIME"),
            _arg("--limit", help="The first so many rows.", type=int, metavar="N"),
            _arg("--lineage", help="With --session: what a branch inherits, too.", action="store_true"),
            _STORE,
        ),
    ),
    Verb(
        "show",
        "Show the transcript of a session or a run.",
        verbs.show,
        "%kern show conversation_123/2",
        'kern_nb.show("conversation_123/2")',
        (
            _arg(
                "ref",
                help="conversation_123 is the session, /2 its run 2, /2.5 that run from message 5.",
                offers="references",
                metavar="REF",
            ),
            _STORE,
        ),
        "The result has `.messages` and `.tool_calls`, two DataFrames.",
    ),
    Verb(
        "branch",
        "Branch a session at its end, or at a run or message of it. No row is copied.",
        verbs.branch,
        "%kern branch conversation_123/0 --as what-if",
        'store.branch("conversation_123", after=0, name="what-if", new_session_id="what-if")',
        (
            _arg(
                "ref",
                help="conversation_123 branches at the end, /2 after run 2, /2.5 after message 5 of it.",
                offers="references",
                metavar="REF",
            ),
            _arg("--as", help="The id and title of the new session; an id is made up where left out.", dest="name", metavar="NAME"),
            _arg("--before", help="Branch before that run or message, not after it.", action="store_true"),
            _STORE,
        ),
        "The value is the new session. Nothing else changes: go on in it by its id.",
    ),
    Verb(
        "check",
        "Look for broken rows: interrupted runs, lost parents, gaps.",
        verbs.check,
        "%kern check --repair",
        "store.check(repair=True)",
        (_arg("--repair", help="Mend what can be mended without guessing.", action="store_true"), _STORE),
    ),
)

SQL = Verb(
    "kern_sql",
    "Run one reading SELECT over the views " + ", ".join((*FRAMES, "requirements")) + ".",
    verbs.sql,
    "%%kern_sql --into errors\nSELECT tool_name, count(*) AS n FROM tool_calls WHERE is_error AND session_id = $chat\nGROUP BY tool_name",
    'errors = store.sql("SELECT ... WHERE session_id = $chat ...", {"chat": chat})',
    (
        _arg("--into", help="The variable that takes the DataFrame; nothing is shown then.", metavar="NAME"),
        _STORE,
    ),
    "The SQL is the rest of the cell, in the dialect of the store's engine. `$name` takes the value of the Python variable of"
    " that name as a parameter, never as text. On one line: `df = %kern_sql SELECT ...`.",
    "%%",
)


def verb(name: str) -> Verb:
    """The verb of a name, which there must be."""
    return next(verb for verb in VERBS if verb.name == name)
