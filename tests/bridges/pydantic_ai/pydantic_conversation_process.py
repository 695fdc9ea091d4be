"""A process that runs an attached agent in one conversation: ``python pydantic_conversation_process.py TARGET NAME RUNS``."""

import asyncio
import sys

from pydantic_ai import Agent
from pydantic_ai.conversation import Conversation
from pydantic_ai.conversation_store import ConversationConflict
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.usage import UsageLimits

from kern_nb.bridges.pydantic_ai import KernConversationStore, attach
from kern_nb.db import open_store


def respond(messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    """Call the tool once a turn."""
    is_prompt = messages[-1].parts[-1].part_kind == "user-prompt"
    return ModelResponse([ToolCallPart("look", {"at": 1}) if is_prompt else TextPart("done")])


async def converse(target: str, name: str, runs: int) -> None:
    """Run the agent, and save each turn; after a conflict, load the conversation and save the turn after the other's."""
    store = open_store(target)
    conversations = KernConversationStore(store)
    agent = Agent(FunctionModel(respond), name=name)

    @agent.tool_plain
    def look(at: int) -> str:
        return f"seen {at}"

    attach(agent, store)
    for n in range(runs):
        conversation = await conversations.load("chat") or Conversation(conversation_id="chat")
        result = await agent.run(f"{name} {n}", conversation=conversation, usage_limits=UsageLimits(request_limit=None))
        turn = result.new_messages()
        conversation = result.conversation
        while True:
            try:
                await conversations.save(conversation)
                break
            except ConversationConflict:
                conversation = await conversations.load("chat") or Conversation(conversation_id="chat")
                conversation.messages += turn


if __name__ == "__main__":
    asyncio.run(converse(sys.argv[1], sys.argv[2], int(sys.argv[3])))
