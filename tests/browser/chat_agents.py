"""Code for cells: an agent that streams, requires approval for payments, and waits for a file on request."""

CLERK = """
import asyncio, json
from pathlib import Path
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import DeltaToolCall, FunctionModel
import kern_nb
from kern_nb.agent import tool
from kern_nb.widgets.chat.widget import chat
from kern_nb.widgets.requirements.widget import inbox_widget

gate = Path({gate!r})
store = kern_nb.attach({db!r})
failures = iter([True])

def turn(messages):
    last = messages[-1].parts[-1]
    said = str(last.content)
    if last.part_kind == "tool-return" and last.tool_name == "find_order":
        return ["Six mugs. I ask whether two may be paid back.", ("refund", dict(order_id="W-1", amount=25.8))]
    if last.part_kind == "tool-return":
        return ["Done: " + said]
    if "broken" in said:
        return ["Let me look.", ("find_order", dict(order_id="W-1"))]
    if "unlucky" in said and next(failures, False):
        raise RuntimeError("the line is dead")
    return ["You said: ", said] if "gate" not in said else ["It is shut", " and now it is open"]

async def respond(messages, info):
    return ModelResponse(parts=[TextPart(p) if isinstance(p, str) else ToolCallPart(*p) for p in turn(messages)])

async def stream(messages, info):
    for n, part in enumerate(turn(messages)):
        while part.startswith(" and now") and not gate.exists() if isinstance(part, str) else False:
            await asyncio.sleep(0.02)
        if isinstance(part, str):
            yield part
        else:
            yield {{n: DeltaToolCall(part[0], json.dumps(part[1]), tool_call_id=f"{{part[0]}}-{{len(messages)}}")}}

def find_order(order_id: str) -> dict:
    return dict(order_id=order_id, mugs=6, note="<b onclick=alert(1)>sent</b>")

def refund(order_id: str, amount: float) -> str:
    return f"{{amount:.2f}} euros paid back"

tools = [find_order, tool(refund, requires_confirmation=True, prompt="May it be paid back?")]
clerk = kern_nb.Agent(FunctionModel(respond, stream_function=stream), id="clerk", name="Clerk", tools=tools)
"""

RUN_CELL = """index => {
  window.jupyterapp.shell.currentWidget.content.activeCellIndex = index;
  window.jupyterapp.commands.execute("notebook:run-cell");
}"""
