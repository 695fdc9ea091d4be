"""Verbs about the requirements of paused runs: inbox, approve, reject, answer, handoff, reply."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import kern_nb
from kern_nb import environment
from kern_nb.errors import BadUsage
from kern_nb.magics.verb import STORE, arg, switch, verb

_REF = arg("ref", "REF", "A requirement's id or a prefix of it, or its run (`chat/2`).", "requirements")
_RESOLVER = (
    arg("--note", "TEXT", "A note for the model, or for the person who resolves it next."),
    arg("--by", "WHO", "The person who resolves it; by default the login name."),
    STORE,
)


def _inbox(args: Namespace) -> object:
    if args.widget:
        from kern_nb.widgets.requirements.widget import inbox_widget

        if args.session or args.all:
            option = "--session" if args.session else "--all"
            raise BadUsage(f"--widget does not support {option}.", "It supports --user, --for and --store.")
        return inbox_widget(args.store, assignee=args.assignee, user_id=args.user)
    filters = {"user_id": args.user, "assignee": args.assignee, "reference": args.session}
    return kern_nb.inbox(**filters, everything=args.all, store=args.store)


def _approve(args: Namespace) -> object:
    from kern_nb.operations.value_parser import parse_json_object

    return _resolve("approve", args, args=None if args.args is None else parse_json_object(args.args, "--args"))


def _resolve(function: str, line: Namespace, *values: str, **options: Any) -> object:
    """Call a function of `operations.resolve` for the requirement, the note and the person of a line."""
    from kern_nb.operations import resolve

    by = environment.login_name() if line.by is None else line.by
    return getattr(resolve, function)(line.ref, *values, **options, note=line.note, by=by, store=line.store)


def _reply(args: Namespace) -> object:
    from kern_nb.operations import resolve

    return resolve.reply(args.ref, " ".join(args.text), files=args.file or (), by=args.by, store=args.store)


VERBS = (
    verb(
        "inbox",
        "List the pending requirements of paused runs.",
        _inbox,
        arg("--user", "USER", "Only sessions of this user."),
        arg("--for", "WHO", "Only requirements assigned to this person.", dest="assignee"),
        arg("--session", "REF", "Only this session, or one run of it.", "references"),
        switch("--all", "Include resolved and expired requirements."),
        switch("--widget", "Show a widget that resolves by a click and refreshes automatically."),
        STORE,
        example="%kern inbox --for ann",
        python='kern_nb.inbox(assignee="ann")',
        details="`.df` of the result is the DataFrame, `.requirements` the list. In Python, the widget is"
        " `kern_nb.widgets.requirements.widget.inbox_widget(...)`.",
    ),
    verb(
        "approve",
        "Approve a tool call that needs confirmation, with the model's arguments or with others.",
        _approve,
        _REF,
        arg("--args", "JSON", "Arguments that replace the model's, as a JSON object."),
        *_RESOLVER,
        example='%kern approve 3f2a91bc --args {"path": "old.txt"}',
        python='store.resolve("3f2a91bc", approve=True, args={"path": "old.txt"})',
        details="A requirement is resolved once: a second attempt is refused. Resume the run with `%kern continue`.",
    ),
    verb(
        "reject",
        "Reject a requirement of a paused run.",
        lambda args: _resolve("reject", args),
        _REF,
        *_RESOLVER,
        example='%kern reject 3f2a91bc --note "That file is still needed."',
        python='store.resolve("3f2a91bc", approve=False, note="That file is still needed.")',
        details="The model receives the note.",
    ),
    verb(
        "answer",
        "Provide the value that a paused run requires.",
        lambda args: _resolve("answer", args, *args.value),
        _REF,
        arg("value", "VALUE", "JSON, a text, or field=value for each required field.", nargs="+"),
        *_RESOLVER,
        example='%kern answer 3f2a91bc city=Paris date="next Monday"',
        python='store.resolve("3f2a91bc", value={"city": "Paris", "date": "next Monday"})',
        details="A value that parses as JSON is JSON, anything else is text; several words are one text.",
    ),
    verb(
        "handoff",
        "Assign a requirement, or a whole session, to a person.",
        lambda args: _resolve("handoff", args, to=args.to),
        arg("ref", "REF", "A requirement, a run or a session.", "handoffs"),
        arg("--to", "WHO", "The person.", required=True),
        *_RESOLVER,
        example='%kern handoff chat/2 --to ann --note "You know this customer."',
        python='store.handoff("chat/2", to="ann", note="You know this customer.")',
        details="A session without a pending requirement gets a paused run, which resumes after the person's answer."
        " No agent starts a run in a session that is handed off.",
    ),
    verb(
        "reply",
        "Write a message or files into a session that is handed off.",
        _reply,
        arg("ref", "REF", "The session, its run or the requirement.", "handoffs"),
        arg("text", "TEXT", "The message.", nargs="*"),
        arg("--file", "PATH", "A file for the session's workspace; repeat it for several.", action="append"),
        arg("--by", "WHO", "The person; by default the one to whom the session is handed off."),
        STORE,
        example='%kern reply chat "I called her." --file refund.pdf',
        python='store.reply("chat", "I called her.", files={"refund.pdf": data})',
        details="The session stays handed off until the requirement is answered: `%kern answer`.",
    ),
)
