"""Verbs about the requirements of paused runs: inbox, approve, reject, answer, handoff."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from kern_nb import environment
from kern_nb.errors import BadUsage
from kern_nb.magics.verb import STORE, arg, switch, verb

if TYPE_CHECKING:
    from kern_nb.operations.inbox import Inbox
    from kern_nb.operations.resolve import Resolution
    from kern_nb.widgets.requirements.widget import InboxWidget

_REF = arg("ref", "REF", "A requirement's id or a prefix of it, or its run (`chat/2`).", "requirements")
_NOTE = arg("--note", "TEXT", "A note for the model, or for the person who resolves it next.")
_BY = arg("--by", "WHO", "The person who resolves it; by default the login name.")


@verb(
    "inbox",
    "List the pending requirements of paused runs.",
    example="%kern inbox --for ann",
    python='kern_nb.inbox(assignee="ann")',
    arguments=(
        arg("--user", "USER", "Only sessions of this user."),
        arg("--for", "WHO", "Only requirements assigned to this person.", dest="assignee"),
        arg("--session", "REF", "Only this session, or one run of it.", "references"),
        switch("--all", "Include resolved and expired requirements."),
        switch("--widget", "Show a widget that resolves by a click and refreshes automatically."),
        STORE,
    ),
    details="`.df` of the result is the DataFrame, `.requirements` the list. In Python, the widget is"
    " `kern_nb.widgets.requirements.widget.inbox_widget(...)`.",
)
def _inbox(args: Namespace) -> Inbox | InboxWidget:
    if args.widget:
        from kern_nb.widgets.requirements.widget import inbox_widget

        if args.session or args.all:
            option = "--session" if args.session else "--all"
            raise BadUsage(f"--widget does not support {option}.", "It supports --user, --for and --store.")
        return inbox_widget(args.store, assignee=args.assignee, user_id=args.user)
    from kern_nb.operations.inbox import inbox

    filters = {"user_id": args.user, "assignee": args.assignee, "reference": args.session}
    return inbox(**filters, everything=args.all, store=args.store)


@verb(
    "approve",
    "Approve a tool call that needs confirmation, with the model's arguments or with others.",
    example='%kern approve 3f2a91bc --args {"path": "old.txt"}',
    python='store.resolve("3f2a91bc", approve=True, args={"path": "old.txt"})',
    arguments=(
        _REF,
        arg("--args", "JSON", "Arguments that replace the model's, as a JSON object."),
        _NOTE,
        _BY,
        STORE,
    ),
    details="A requirement is resolved once: a second attempt is refused. Resume the run with `%kern continue`.",
)
def _approve(args: Namespace) -> Resolution:
    from kern_nb.operations import resolve, value_parser

    replacement = None if args.args is None else value_parser.parse_json_object(args.args, "--args")
    return resolve.approve(args.ref, args=replacement, **_resolver(args))


@verb(
    "reject",
    "Reject a requirement of a paused run.",
    example='%kern reject 3f2a91bc --note "That file is still needed."',
    python='store.resolve("3f2a91bc", approve=False, note="That file is still needed.")',
    arguments=(_REF, _NOTE, _BY, STORE),
    details="The model receives the note.",
)
def _reject(args: Namespace) -> Resolution:
    from kern_nb.operations import resolve

    return resolve.reject(args.ref, **_resolver(args))


@verb(
    "answer",
    "Provide the value that a paused run requires.",
    example='%kern answer 3f2a91bc city=Paris date="next Monday"',
    python='store.resolve("3f2a91bc", value={"city": "Paris", "date": "next Monday"})',
    arguments=(
        _REF,
        arg("value", "VALUE", "JSON, a text, or field=value for each required field.", nargs="+"),
        _NOTE,
        _BY,
        STORE,
    ),
    details="A value that parses as JSON is JSON, anything else is text; several words are one text.",
)
def _answer(args: Namespace) -> Resolution:
    from kern_nb.operations import resolve

    return resolve.answer(args.ref, *args.value, **_resolver(args))


@verb(
    "handoff",
    "Assign a requirement, or a whole session, to a person.",
    example='%kern handoff chat/2 --to ann --note "You know this customer."',
    python='store.handoff("chat/2", to="ann", note="You know this customer.")',
    arguments=(
        arg("ref", "REF", "A requirement, a run or a session.", "handoffs"),
        arg("--to", "WHO", "The person.", required=True),
        _NOTE,
        _BY,
        STORE,
    ),
    details="A session without a pending requirement gets a paused run, which resumes after the person's answer.",
)
def _handoff(args: Namespace) -> Resolution:
    from kern_nb.operations import resolve

    return resolve.handoff(args.ref, to=args.to, **_resolver(args))


def _resolver(args: Namespace) -> dict[str, Any]:
    by = environment.login_name() if args.by is None else args.by
    return {"note": args.note, "by": by, "store": args.store}


VERBS = (_inbox, _approve, _reject, _answer, _handoff)
