"""Two clerks of the toy shop, for the notebooks: agents with real tools, on models that follow a script.

A script reacts to the messages of the customer and the tools and makes mistakes, the novice's more often. Its random
generator is seeded with the customer's messages, so that the sessions are reproducible. The shop's orders are in the
session state: a branch has those of its branch point.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from sample_shop import ORDERS, POLICY, STOCK, TASKS, Calls, Shop, Task

from kern_nb import Agent, Message
from kern_nb.db import SessionStore
from kern_nb.models.scripted import Answer, ScriptedModel, call


class Skill(NamedTuple):
    """How often a task fails, how often a number is misread at first, and whether the clerk verifies its changes."""

    fails: float
    misreads: float
    looks_again: bool


SKILLS = {"novice": Skill(0.45, 0.4, looks_again=False), "expert": Skill(0.1, 0.1, looks_again=True)}
SEED = 4062
ASK = "I will have a look. What is the number of your order, and on whose name is it?"
MANNERS = ("", " Please hurry.", " Thank you!")
MISREADINGS = ("#{}", "no. {}", "order-{}")


def clerk(skill: str, **options: Any) -> Agent:
    """An agent that serves the shop's customers: ``clerk("novice")`` or ``clerk("expert")``.

    Args:
        skill: The agent's id, too; its model is called ``novice-1`` or ``expert-1``.
        **options: Other parameters of `Agent`.
    """
    model = ScriptedModel(lambda messages: Script(skill, messages).answer(), id=f"{skill}-1")
    defaults = {"id": skill, "tools": TOOLS, "instructions": POLICY, "add_history_to_context": True}
    return Agent(model, **(defaults | {"session_state": {"orders": ORDERS, "stock": STOCK}} | options))


def serve(agent: Agent, *, tasks: Sequence[Task] = TASKS, trials: int = 3) -> None:
    """Let an agent serve customers, each in its own session, and score the result."""
    for task in tasks:
        for trial, manner in enumerate(MANNERS[:trials]):
            session_id = f"{agent.id}-{task.id}-{trial}"
            agent.run(task.opening, session_id=session_id, session_state={"task_id": task.id, "trial": trial})
            answer = agent.run(task.number + manner, session_id=session_id).output
            if "Shall I" in answer:
                agent.run("Yes, please.", session_id=session_id)
            rate(agent.store, session_id)


def rate(store: SessionStore, session_id: str) -> float:
    """Score a session: 1 if exactly the right orders were changed and the customer was informed, else 0."""
    session = store.get_session(session_id)
    if session is None:
        raise LookupError(session_id)
    inputs = " ".join(str(run.input) for run in session.runs)
    task = next(task for task in TASKS if task.order_id in inputs)
    ideal = Shop()
    for name, arguments in task.acts:
        ideal.call(name, arguments)
    is_informed = any(task.must_say in str(run.output) for run in session.runs)
    reward = float(session.session_state["orders"] == ideal.orders and is_informed)
    store.add_score(session_id, "reward", reward, source="shop")
    return reward


# The tools: each works on the orders in the session's state.


def find_order(session_state: dict[str, Any], order_id: str) -> dict[str, Any]:
    """Look an order up."""
    return Shop(session_state).tool_find_order(order_id)


def check_stock(session_state: dict[str, Any], item: str) -> dict[str, Any]:
    """Count what is in stock."""
    return Shop(session_state).tool_check_stock(item)


def change_address(session_state: dict[str, Any], order_id: str, street: str) -> dict[str, Any]:
    """Send an order somewhere else."""
    return Shop(session_state).tool_change_address(order_id, street)


def cancel_order(session_state: dict[str, Any], order_id: str) -> dict[str, Any]:
    """Cancel an order."""
    return Shop(session_state).tool_cancel_order(order_id)


def refund_item(session_state: dict[str, Any], order_id: str, item: str) -> dict[str, Any]:
    """Pay for an item back."""
    return Shop(session_state).tool_refund_item(order_id, item)


def exchange_item(session_state: dict[str, Any], order_id: str, item: str, new_item: str) -> dict[str, Any]:
    """Send another item for one that was delivered."""
    return Shop(session_state).tool_exchange_item(order_id, item, new_item)


def transfer_to_person(reason: str) -> dict[str, Any]:
    """Hand the conversation over."""
    return {"transferred": True, "reason": reason}


TOOLS = [find_order, check_stock, change_address, cancel_order, refund_item, exchange_item, transfer_to_person]
LOOKS = ("find_order", "check_stock")


class Script:
    """Computes the next answer or tool call of a clerk from the conversation so far."""

    def __init__(self, skill: str, messages: Sequence[Message]) -> None:
        self.skill = SKILLS[skill]
        self.inputs_of_user = [str(message.content) for message in messages if message.role == "user"]
        self.answers = [str(message.content) for message in messages if message.role == "assistant" and message.content]
        self.calls = [(c.tool_name or "", c.args) for message in messages for c in message.tool_calls]
        self.results = [message for message in messages if message.role == "tool"]
        numbers = [(number[0], text) for text in self.inputs_of_user if (number := re.search(r"\b\d{4}\b", text))]
        self.number, text = numbers[-1] if numbers else (None, "")
        self.task = next((task for task in TASKS if task.order_id == self.number), None)
        rng = Random(f"{SEED} {skill} {text}")
        self.fails, self.misreads = rng.random() < self.skill.fails, rng.random() < self.skill.misreads
        self.failure = rng.choice(("acts wrongly", "acts wrongly", "hands over", "is lost")) if self.fails else None

    def answer(self) -> Answer:
        """Find the order first, then make the required calls one after the other, then answer."""
        if self.number is None or len(self.inputs_of_user) == 1:
            return ASK
        if not any(message.tool_name == "find_order" and not message.is_error for message in self.results):
            return self._look_up(self.number)
        if self.task is None:
            return "I have found your order. What can I do about it?"
        if self.failure == "hands over":
            calls: Calls = [("transfer_to_person", {"reason": self.inputs_of_user[0]})]
        elif self.failure == "acts wrongly":
            calls = self._wrong(self.task)
        elif self.task.acts and not (self.task.offer in self.answers and "yes" in self.inputs_of_user[-1].lower()):
            return self._next(self.task.looks) or self.task.offer
        else:
            calls = self.task.acts
        return self._next(calls) or self._look_again(self.task) or self._closing(self.task)

    def _look_up(self, number: str) -> Answer:
        order_ids = [args["order_id"] for name, args in self.calls if name == "find_order"]
        slips = MISREADINGS if self.failure == "is lost" else MISREADINGS[: self.misreads]
        if len(order_ids) < len(slips):
            return call("find_order", order_id=slips[len(order_ids)].format(number))
        if self.failure == "is lost" or number in order_ids:
            return f"I am sorry, I cannot find the order #{number}."
        return call("find_order", order_id=number)

    def _next(self, calls: Calls) -> Answer | None:
        """Return the first of these calls that is not in the conversation yet."""
        return next((call(name, **args) for name, args in calls if (name, args) not in self.calls), None)

    def _wrong(self, task: Task) -> Calls:
        """Return wrong calls: of several items, those that the customer names first."""
        if len(task.acts) < 2:
            return task.wrong_acts
        text = " ".join(self.inputs_of_user)
        items = sorted((item for item in ORDERS[task.order_id]["items"] if item in text), key=text.find)
        return [("refund_item", {"order_id": task.order_id, "item": item}) for item in items[: len(task.acts)]]

    def _look_again(self, task: Task) -> Answer | None:
        changed = self.calls[-1][0] not in (*LOOKS, "transfer_to_person")
        return call("find_order", order_id=task.order_id) if changed and self.skill.looks_again else None

    def _closing(self, task: Task) -> str:
        """Return the final answer, depending on the calls."""
        acts = [item for item in self.calls if item[0] not in LOOKS]
        if ("transfer_to_person", {"reason": self.inputs_of_user[0]}) in acts:
            return "I have passed this on to a colleague, who will write to you tomorrow."
        if sorted(map(str, acts)) == sorted(map(str, task.acts)) and (acts or self.failure is None):
            return task.done
        refunds = [value for message in self.results if "refunded" in (value := _value(message))]
        if len(refunds) < 2:
            return task.wrong
        items = " and the ".join(refund["item"] for refund in refunds)
        return f"I have refunded {sum(refund['refunded'] for refund in refunds):.2f} for the {items}."


def _value(message: Message) -> dict[str, Any]:
    """Parse the result of a tool."""
    value = message.content
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except ValueError:  # an error message
        return {}
    return value if isinstance(value, dict) else {}
