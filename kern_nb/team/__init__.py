"""Teams: a leader that delegates tasks to members."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kern_nb._lazy import lazy_names

if TYPE_CHECKING:
    from kern_nb.team.mode import TeamMode
    from kern_nb.team.team import Team

__all__ = ["Team", "TeamMode"]

__getattr__, __dir__ = lazy_names(__name__, {"kern_nb.team.mode": ["TeamMode"], "kern_nb.team.team": ["Team"]})
