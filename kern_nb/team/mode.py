"""How the leader of a team works with its members."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["TeamMode"]


class TeamMode(StrEnum):
    """How the leader of a team works with its members."""

    coordinate = "coordinate"
    """It gives tasks to members, and answers from what they say."""

    route = "route"
    """It gives the request to a member, whose answer is the team's."""

    broadcast = "broadcast"
    """It gives one task to all members, and answers from what they say."""
