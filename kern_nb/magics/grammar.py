"""The verbs as data: the parser, the help, Tab and `docs/magics.md` are made from it. A new verb is a new entry.

What an entry is made of is in `syntax`, what a verb calls in `verbs`, how a line is read in `parsing`.
"""

from __future__ import annotations

from kern_nb.magics import verbs
from kern_nb.magics.grammar_agents import AGENT_VERBS
from kern_nb.magics.grammar_analysis import ANALYSIS_VERBS
from kern_nb.magics.grammar_widgets import WIDGET_VERBS
from kern_nb.magics.kinds import FRAMES, STATUSES, one_of
from kern_nb.magics.syntax import STORE, Argument, Verb, arg, switch

__all__ = ["SQL", "VERBS", "Argument", "Verb", "reference"]

_USER = arg("--user", "USER", "Those of one user.")
_AGENT = arg("--agent", "AGENT", "Those of one agent.", "agent_ids")
_SESSION = arg("ref", "REF", "The session, by its id or a unique prefix of it.", "sessions")
_NAME = arg("name", "NAME", "The name of the store.", "stores")

VERBS: tuple[Verb, ...] = (
    Verb(
        "attach",
        "Open a store, give it a name and use it.",
        verbs.attach,
        example="%kern attach sessions.duckdb --as prod --read-only",
        python='kern_nb.attach("sessions.duckdb", name="prod", read_only=True)',
        arguments=(
            arg("target", "TARGET", "A .duckdb, .db or .sqlite file, a database URL, or :memory:.", "paths"),
            arg("--as", "NAME", "Its name here; else the file's stem or the database's name.", dest="name"),
            switch("--read-only", "Refuse writes."),
            arg("--table", "SESSION_TABLE", "The name of the sessions' table.", default="agno_sessions"),
        ),
        more="Nothing is written by attaching: a new path becomes a file at the first write. The store that was"
        " attached last is the one in use.\n\n"
        "A database that has tables, and none of kern_nb, is another program's: it is refused, its layout is named, and"
        " no byte or time stamp of it changes. `--table` with a name of your own says that ours may be made"
        " beside theirs, at the first write.",
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
            arg("path", "PATH", "A file, a folder, or a pattern like *.json.", "paths", nargs="+"),
            arg("--format", "FORMAT", "The importer; recognised by the content where left out.", "formats"),
            STORE,
        ),
        more="Importing the same again changes nothing.",
    ),
    Verb(
        "export",
        "Write sessions or runs to a file: a bundle to import elsewhere, or a page to read.",
        verbs.export,
        example="%kern export conversation_123 what-if chats.json",
        python='kern_nb.export("conversation_123", "what-if", path="chats.json")',
        arguments=(
            arg("ref", "REF", "Sessions or runs.", "references", nargs="*"),
            arg("path", "PATH", "A .json file for a bundle, an .html file for a page; the last word.", "paths"),
            switch("--all", "All sessions of the store, in place of names."),
            switch("--force", "Write over a file that is there."),
            STORE,
        ),
        more="A bundle holds all that is stored of its sessions, their files too; `%kern import chats.json` gives the"
        " same again, in any store. A branch without its parent gets its own copy of what it inherits. A paused run"
        " waits in the store that imports it, too: answer it in one of the two, or its tool runs twice. Tables are"
        " frames: `%kern load`.",
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
            arg("--last", "N", "How many; 50 where left out.", type=int, default=50),
            arg("--name", "PART", "Those with this in their title."),
            arg(
                "--status",
                "STATUS",
                "Those whose latest run has this status.",
                "statuses",
                type=one_of("status", STATUSES, str.upper),
            ),
            STORE,
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
            arg("frame", "|".join(FRAMES), "What to load.", "frames", type=one_of("frame", FRAMES)),
            arg("--session", "REF", "One session, by its id or a unique prefix of it.", "sessions"),
            _USER,
            _AGENT,
            arg("--since", "TIME", "Created then or later; 2026-11-20 or 2026-11-20T14:30, in UTC."),
            arg("--until", "TIME", "Created before then."),
            arg("--limit", "N", "The first so many rows.", type=int),
            arg("--columns", "A,B", "Only these columns, in this order; no totals are computed for others.", "columns"),
            arg(
                "--expand",
                "PATH,PATH",
                "Values inside JSON as columns: metadata.task_id, state.step, args.city.",
                "inside",
            ),
            switch("--lineage", "With --session: what a branch inherits, too."),
            STORE,
        ),
        more="Columns, and what can be expanded, are in docs/columns.md.",
    ),
    Verb(
        "show",
        "Show the transcript of a session or a run.",
        verbs.show,
        example="%kern show conversation_123/2",
        python='kern_nb.show("conversation_123/2")',
        arguments=(
            arg(
                "ref",
                "REF",
                "`chat` is the session, `chat/2` its run 2, `chat/2.5` the same from message 5.",
                "references",
            ),
            STORE,
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
            arg(
                "ref", "REF", "`chat` is its end, `chat/2` after run 2, `chat/2.5` after message 5 of it.", "references"
            ),
            arg("--as", "NAME", "The new session's id and title; an id is made up where left out.", dest="name"),
            switch("--before", "Branch before that run or message, not after it."),
            STORE,
        ),
        more="The value is the new session. Nothing else changes: go on in it by its id.",
    ),
    Verb(
        "rename",
        "Give a session another title.",
        verbs.rename,
        example='%kern rename conversation_123 "Broken mugs"',
        python='store.rename_session("conversation_123", "Broken mugs")',
        arguments=(_SESSION, arg("title", "TITLE", "The title; in quotes where it has spaces."), STORE),
    ),
    Verb(
        "tag",
        "Give a session other tags, or none.",
        verbs.tag,
        example='%kern tag conversation_123 refund "to do"',
        python='store.tag_session("conversation_123", ["refund", "to do"])',
        arguments=(_SESSION, arg("tag", "TAG", "Its tags from now on.", nargs="*"), STORE),
        more="They stand in the metadata, under `tags`. `%kern browse --text #refund` finds those with a tag.",
    ),
    *ANALYSIS_VERBS,
    *AGENT_VERBS,
    *WIDGET_VERBS,
    Verb(
        "check",
        "Look for broken rows: damaged values, interrupted runs, lost parents, gaps.",
        verbs.check,
        example="%kern check --repair",
        python="store.check(repair=True)",
        arguments=(
            switch("--repair", "Mend what can be mended without guessing; damaged values are set aside."),
            STORE,
        ),
    ),
)

SQL = Verb(
    "kern_sql",
    "Run one reading SELECT over the views " + ", ".join((*FRAMES, "requirements")) + ".",
    verbs.sql,
    example="%%kern_sql --into tools\nSELECT tool_name, count(*) FROM tool_calls WHERE session_id = $chat GROUP BY 1",
    python='tools = store.sql("SELECT ... WHERE session_id = $chat ...", {"chat": chat})',
    arguments=(
        arg("--into", "NAME", "The variable that takes the DataFrame; nothing is shown then."),
        STORE,
    ),
    more="The SQL is the rest of the cell, in the dialect of the store's engine. `$name` takes the value of the Python"
    " variable of that name as a parameter, never as text. On one line: `df = %kern_sql SELECT ...`.",
    prefix="%%",
)


def reference() -> str:
    """The Markdown reference of all verbs, as it stands in `docs/magics.md`."""
    from kern_nb.magics import help_pages

    return help_pages.reference()
