"""Verbs about stores: attach, stores, use, detach, import, formats, export, check."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import kern_nb
from kern_nb import store_registry
from kern_nb.db.urls import mask, postgres_url
from kern_nb.errors import BadUsage, RecordsNotFound
from kern_nb.magics.verb import STORE, arg, switch, verb

_NAME = arg("name", "NAME", "The name of the store.", "stores")


def _attach(args: Namespace) -> None:
    kern_nb.attach(args.target, name=args.name, read_only=args.read_only, session_table=args.table)


def _use(args: Namespace) -> None:
    kern_nb.use(args.name)


def _import(args: Namespace) -> object:
    programs = None if args.program is None else [name.strip() for name in args.program.split(",") if name.strip()]
    is_mine = args.mine or programs is not None
    if not args.path and not is_mine:
        raise BadUsage("%kern import needs a PATH, or --mine.", "For example: %kern import results/")
    if is_mine and (args.path or args.format):
        raise BadUsage("--mine and --from take no PATH and no --format.", "Import the files of a PATH by themselves.")
    if programs == []:
        raise BadUsage("--from names no program.", "For example: %kern import --from codex,claude_code")
    if args.list and (args.follow or not is_mine):
        raise BadUsage("--list needs --mine or --from, and no --follow.", "For example: %kern import --mine --list")
    if args.follow and args.format:
        raise BadUsage("--follow detects the formats and takes no --format.", "Remove --format, or import once.")
    if args.list:
        return kern_nb.local_sessions(*(programs or ()), since=args.since)
    if args.follow:
        programs = programs or [] if is_mine else None
        return kern_nb.follow(*args.path, programs=programs, since=args.since, store=args.store)
    if is_mine:
        return kern_nb.import_local(*(programs or ()), since=args.since, store=args.store)
    paths = [path for text in args.path for path in _expand_path(text)]  # all of them, before any is read
    store = store_registry.find(args.store)
    first, *remaining = [store.ingest(path, format=args.format, since=args.since) for path in paths]
    return sum(remaining, first)


def _expand_path(text: str) -> list[Path | str]:
    if postgres_url(text) is not None:
        return [text]
    path = Path(text).expanduser()
    if path.exists():
        return [path]
    matches = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor)))) if set("*?[") & set(text) else []
    if not matches:
        raise RecordsNotFound(f"No file or folder matches {mask(text)!r}.", f"Relative paths start at {Path.cwd()}.")
    return [*matches]


VERBS = (
    verb(
        "attach",
        "Open a store, name it and use it.",
        _attach,
        arg("target", "TARGET", "A .duckdb, .db or .sqlite file, a database URL, or :memory:.", "paths"),
        arg("--as", "NAME", "Its name; by default the file's stem or the database's name.", dest="name"),
        switch("--read-only", "Refuse writes."),
        arg("--table", "SESSION_TABLE", "The name of the session table.", default="agno_sessions"),
        example="%kern attach sessions.duckdb --as prod --read-only",
        python='kern_nb.attach("sessions.duckdb", name="prod", read_only=True)',
        details="Attaching writes nothing: a new path becomes a file at the first write. The store attached last is the"
        " one in use.\n\n"
        "A database that has tables, but none of kern_nb, belongs to another program, and no byte or time stamp of it"
        " changes. If a format of `%kern formats` is kept in such a database, as by Agno, OpenAI Agents, LangGraph, llm"
        " and OpenCode, its sessions are read in place, with the same tables, transcripts and comparisons; attach it"
        " again to read what was written since. Other databases are refused with the name of their layout. With"
        " `--table` and a name of your own, the tables of kern_nb are created beside the others at the first write.",
    ),
    verb(
        "stores",
        "List the attached stores, passwords masked.",
        lambda _: kern_nb.stores(),
        example="%kern stores",
        python="kern_nb.stores()",
    ),
    verb(
        "use",
        "Make an attached store the one in use.",
        _use,
        _NAME,
        example="%kern use prod",
        python='kern_nb.use("prod")',
    ),
    verb(
        "detach",
        "Close a store and remove its name.",
        lambda args: kern_nb.detach(args.name),
        _NAME,
        example="%kern detach prod",
        python='kern_nb.detach("prod")',
        details="The file stays as it is; the content of a store in memory is lost. No other store becomes the one in"
        " use.",
    ),
    verb(
        "import",
        "Import recorded sessions from files, folders or a PostgreSQL database.",
        _import,
        arg(
            "path",
            "PATH",
            "A file, an archive, a folder, a pattern like *.json, or a postgresql:// URL.",
            "paths",
            nargs="*",
        ),
        arg("--format", "FORMAT", "The importer; by default detected from the content.", "formats"),
        switch("--mine", "Import the sessions that coding agents and other programs keep on this machine."),
        arg("--from", "A,B", "Only those of these programs, such as codex,claude_code.", "programs", dest="program"),
        arg("--since", "TIME", "Only sessions with something then or later; 2026-11-20 or 2026-11-20T14:30, in UTC."),
        switch("--list", "With --mine: list the folders, numbers, dates and sizes, and import nothing."),
        switch("--follow", "Keep the store up to date with the files until it is interrupted."),
        STORE,
        example="%kern import results/ more/*.json --format tau2",
        python='store.ingest("results/", format="tau2")',
        details="Importing the same records again changes nothing. A record that several files repeat is stored once:"
        " forks, retries and copies become branches, and nested agents runs of the run that started them.\n\n"
        "`%kern import --mine` finds the folders of the programs that `%kern formats` lists, with their environment"
        " variables, and imports what is new; `--list` shows what is there. Nothing leaves this machine. In Python:"
        " `kern_nb.import_local()`, `kern_nb.local_sessions()` and `kern_nb.follow(path)`.",
    ),
    verb(
        "formats",
        "List the formats that can be imported, and where such files lie.",
        lambda _: kern_nb.formats(),
        example="%kern formats",
        python="kern_nb.formats()",
        details="docs/formats.md explains what is imported, and docs/importers.md how a package adds a format.",
    ),
    verb(
        "export",
        "Write sessions or runs to a file: a bundle to import elsewhere, a page to read, ATIF, STS or Parquet.",
        lambda args: kern_nb.export(
            *args.ref, path=args.path, format=args.format, everything=args.all, overwrite=args.force, store=args.store
        ),
        arg("ref", "REF", "Sessions or runs.", "references", nargs="*"),
        arg(
            "path",
            "PATH",
            "A .json file for a bundle, .html for a page, .parquet for rows, or a folder; the last word.",
            "paths",
        ),
        arg(
            "--format",
            "FORMAT",
            "bundle, page, atif, sts, parquet or agno; by default the one of the path's suffix.",
            "export_formats",
        ),
        switch("--all", "Export all sessions of the store; takes no REF."),
        switch("--force", "Overwrite existing files."),
        STORE,
        example="%kern export conversation_123 what-if chats.json",
        python='kern_nb.export("conversation_123", "what-if", path="chats.json")',
        details="A bundle holds everything that is stored of its sessions, their files included; `%kern import"
        " chats.json` restores the same in any store. A branch exported without its parent gets its own copy of the"
        " inherited rows. A paused run is also pending in the store that imports it: resume it in only one of the two,"
        " or its tool runs twice.\n\n"
        "Formats of other programs are subsets. `--format atif` writes trajectories for Harbor and Terminal-Bench: one"
        " session to a `.json` file, several to a folder (`%kern export chat other trajectories/ --format atif`), with"
        " pictures in `images/` beside them; what a branch inherits is copied context, members' runs are nested"
        " trajectories. `--format sts` writes traces that the Hugging Face Hub shows: a `.jsonl` file, or a folder."
        " A `.parquet` file has a row a session, with `messages` as chat trainers read them and columns of facts. All"
        " of these can be imported again. `--format agno` writes a `.db` file that agents of Agno continue."
        ' For tables, use `%kern load`, or `store.table("messages")` for Arrow.',
    ),
    verb(
        "check",
        "Report broken rows: damaged values, interrupted runs, missing parents, gaps.",
        lambda args: store_registry.find(args.store).check(repair=args.repair, hosts_gone=args.hosts_gone),
        switch("--repair", "Repair what can be repaired without guessing; damaged values are set aside."),
        arg(
            "--hosts-gone",
            "HOST",
            "A host that no longer exists, such as a recreated container: its open runs count as interrupted."
            " Repeatable.",
            action="append",
            default=[],
        ),
        STORE,
        example="%kern check --repair",
        python="store.check(repair=True)",
    ),
)
