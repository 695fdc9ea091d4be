"""What the verbs of widgets call: the parsed line in, one public call, its value out."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kern_nb.widgets.browser.widget import SessionBrowser
    from kern_nb.widgets.chat.widget import Chat


def browse(args: Namespace) -> SessionBrowser:
    """The session browser."""
    from kern_nb.widgets.browser.widget import browse

    return browse(args.store, text=args.text, agent=args.agent, user=args.user, status=args.status)


def chat(args: Namespace) -> Chat:
    """A conversation with an agent."""
    from kern_nb.widgets.chat.widget import chat

    return chat(args.agent, args.session, user_id=args.user)
