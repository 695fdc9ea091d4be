"""`AgentSession`: a `Session` is one of any kind, which its ``session_type`` names."""

from __future__ import annotations

from kern_nb.records import Session as AgentSession

__all__ = ["AgentSession"]
