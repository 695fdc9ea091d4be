"""Agents of other frameworks, recorded in a store: a package per framework, each behind an extra of its name.

`attach_agent` recognizes the framework of an agent and imports its package, which has ``attach(agent, store)``.
"""

from kern_nb.bridges.attachment import attach_agent, attached_agents, detach_agent
from kern_nb.operations.attachments import Attachment

__all__ = ["Attachment", "attach_agent", "attached_agents", "detach_agent"]
