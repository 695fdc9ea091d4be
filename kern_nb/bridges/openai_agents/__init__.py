"""The OpenAI Agents SDK: `KernSession` keeps its sessions in a store, `attach` records an agent's runs.

`attach_agent` calls `attach`:

    from kern_nb import attach_agent
    from kern_nb.bridges.openai_agents import KernSession

    attach_agent(agent)
    result = await Runner.run(agent, "Hello", session=KernSession("chat"))
"""

from kern_nb.bridges.openai_agents.pauses import load_state
from kern_nb.bridges.openai_agents.resume import owner_names, resume
from kern_nb.bridges.openai_agents.runner import attach
from kern_nb.bridges.openai_agents.session import KernSession

__all__ = ["KernSession", "attach", "load_state", "owner_names", "resume"]
