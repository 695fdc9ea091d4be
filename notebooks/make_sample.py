"""Make the sample that the tour looks at: recorded sessions of two made-up models, and a store that holds them.

Nothing here asks a model or the network: the "models" follow a script and slip now and then, one of them more often,
and the dice are seeded. So the files are the same wherever they are made. Run ``python notebooks/make_sample.py``.
"""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from sample_shop import POLICY, TASKS, Calls, Shop, Task

from kern_nb.db import open_store


class Model(NamedTuple):
    """How well a made-up model does, how long it takes, and what a million tokens cost."""

    name: str
    seconds: float
    price_in: float
    price_out: float
    fails: float
    misreads: float


MODELS = (
    Model("small-1", 0.7, price_in=0.15, price_out=0.6, fails=0.45, misreads=0.4),
    Model("large-1", 1.9, price_in=2.5, price_out=10.0, fails=0.1, misreads=0.1),
)
CUSTOMER = Model("customer-1", 1.2, price_in=0.4, price_out=1.6, fails=0, misreads=0)
TRIALS = 2
SEED = 389


class Talk:
    """A conversation as it is recorded: who says what, when, and what it costs."""

    def __init__(self, model: Model, dice: Random, start: datetime) -> None:
        self.model, self.dice, self.now = model, dice, start
        self.shop = Shop()
        self.messages: list[dict[str, Any]] = []
        self.read = len(POLICY)
        self._add("assistant", "Hello, this is the shop's support. How can I help?", None)

    def user(self, text: str) -> None:
        """The customer speaks."""
        self._add("user", text, CUSTOMER)

    def agent(self, text: str) -> None:
        """Support speaks."""
        self._add("assistant", text, self.model)

    def call(self, calls: Calls) -> None:
        """Support uses tools, several at once where there are several."""
        made = [
            {
                "id": f"call_{self.dice.getrandbits(48):012x}",
                "name": name,
                "arguments": arguments,
                "requestor": "assistant",
            }
            for name, arguments in calls
        ]
        self._add("assistant", None, self.model, tool_calls=made)
        for call in made:
            try:
                result, error = json.dumps(self.shop.call(call["name"], call["arguments"]), ensure_ascii=False), False
            except ValueError as refusal:
                result, error = f"Error: {refusal}", True
            self.now += timedelta(seconds=self.dice.uniform(0.02, 0.2))
            self.read += len(result)
            self._record(
                {"role": "tool", "id": call["id"], "content": result, "requestor": "assistant", "error": error}
            )

    def _add(self, role: str, text: str | None, by: Model | None, **more: Any) -> None:
        size = len(text or "") + len(json.dumps(more))
        message = {"role": role, "content": text, "tool_calls": None, "cost": 0.0, "usage": None} | more
        if by is not None:
            tokens_in, tokens_out = 60 + self.read // 4, 4 + size // 4
            self.now += timedelta(seconds=by.seconds * self.dice.uniform(0.6, 1.2) + tokens_out * 0.01)
            message["usage"] = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out}
            message["cost"] = round((tokens_in * by.price_in + tokens_out * by.price_out) / 1_000_000, 8)
        self.read += size
        self._record(message)

    def _record(self, message: dict[str, Any]) -> None:
        self.messages.append(message | {"turn_idx": len(self.messages), "timestamp": self.now.isoformat()})


def simulate(task: Task, model: Model, trial: int) -> dict[str, Any]:
    """One customer, one model, one go."""
    dice = Random(f"{SEED} {model.name} {task.id} {trial}")
    start = datetime(2026, 3, 2, 9) + timedelta(minutes=7 * TASKS.index(task), hours=3 * trial)  # noqa: DTZ001 - as tau2
    talk = Talk(model, dice, start)
    fails, misreads = dice.random() < model.fails, dice.random() < model.misreads
    reason = play(
        talk, task, fails=dice.choice(("wrong", "wrong", "hands over", "is lost")) if fails else None, misreads=misreads
    )
    ideal = Shop()
    for name, arguments in task.acts:
        ideal.call(name, arguments)
    said = any(task.must_say in (m["content"] or "") for m in talk.messages if m["role"] == "assistant")
    parts = {"DB": float(talk.shop.orders == ideal.orders), "COMMUNICATE": float(said)}
    costs = {
        role: round(sum(m.get("cost", 0) for m in talk.messages if m["role"] == role), 8)
        for role in ("assistant", "user")
    }
    return {
        "id": f"{model.name}-{task.id}-{trial}",
        "task_id": task.id,
        "trial": trial,
        "seed": dice.getrandbits(20),
        "start_time": start.isoformat(),
        "end_time": talk.now.isoformat(),
        "duration": (talk.now - start).total_seconds(),
        "termination_reason": reason,
        "agent_cost": costs["assistant"],
        "user_cost": costs["user"],
        "reward_info": {"reward": parts["DB"] * parts["COMMUNICATE"], "reward_breakdown": parts},
        "messages": talk.messages,
    }


def play(talk: Talk, task: Task, *, fails: str | None, misreads: bool) -> str:
    """The conversation; how it ended."""
    talk.user(task.opening)
    talk.agent("I will have a look. What is the number of your order, and on whose name is it?")
    talk.user(task.number)
    if misreads or fails == "is lost":
        talk.call([("find_order", {"order_id": f"#{task.order_id}"})])
    if fails == "is lost":
        for order_id in (f"no. {task.order_id}", f"order-{task.order_id}", f"#{task.order_id}"):
            talk.call([("find_order", {"order_id": order_id})])
        return "too_many_errors"
    talk.call([("find_order", {"order_id": task.order_id}), *task.looks])
    if fails == "hands over":
        talk.call([("transfer_to_person", {"reason": task.opening})])
        talk.agent("I have passed this on to a colleague, who will write to you tomorrow.")
        talk.user("Tomorrow? All right. ###STOP###")
    elif fails == "wrong":
        if task.wrong_acts:
            talk.call(task.wrong_acts)
        talk.agent(task.wrong)
        talk.user("Hm. I had hoped for something else. ###STOP###")
    else:
        if task.acts:
            talk.agent(task.offer)
            talk.user("Yes, please.")
            talk.call(task.acts)
        talk.agent(task.done)
        talk.user("I see. Thank you, that is all. ###STOP###")
    return "user_stop"


def results(model: Model) -> dict[str, Any]:
    """A result file, as the tau2 benchmark writes them."""
    return {
        "timestamp": "2026-03-02T18:00:00",
        "info": {
            "num_trials": TRIALS,
            "max_errors": 4,
            "agent_info": {"implementation": "support_agent", "llm": model.name, "llm_args": {"temperature": 0.0}},
            "user_info": {"implementation": "customer", "llm": CUSTOMER.name, "llm_args": {}},
            "environment_info": {"domain_name": "shop", "policy": POLICY},
        },
        "tasks": [
            {"id": task.id, "user_scenario": {"instructions": f"{task.opening} {task.number}"}} for task in TASKS
        ],
        "simulations": [simulate(task, model, trial) for trial in range(TRIALS) for task in TASKS],
    }


def _said(role: str, content: str | list[dict[str, str]] | None, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def _part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _calls(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return _said("assistant", None, tool_calls=[call])


CHATS: list[dict[str, Any]] = [
    {"id": "soup", "model": "large-1", "metadata": {"topic": "cooking"}, "messages": [
        _said("system", "You are a cook who answers in two sentences."),
        _said("user", "My soup is too salty. Can I save it?"),
        _said("assistant", "Add a peeled potato and let it simmer for ten minutes. A little lemon juice helps, too."),
        _said("user", "No potatoes here, but I have cream."),
        _said("assistant", "Cream works well: stir in a few spoons at the end. Taste before you add any more pepper."),
    ]},
    {"id": "lisbon", "model": "large-1", "metadata": {"topic": "travel"}, "messages": [
        _said("user", "Will I need a coat in Lisbon next week?"),
        _calls("call_1", "forecast", '{"city": "Lisbon", "days": 7}'),
        _said("tool", '{"low": 11, "high": 19, "rain_days": 1}', tool_call_id="call_1"),
        _said("assistant", "Between 11 °C at night and 19 °C by day a light jacket will do. One day may be wet."),
        _said("user", "And in Reykjavík?"),
        _calls("call_1", "forecast", '{"city": "Reykjavík", "days": 7}'),
        _said("tool", '{"low": -3, "high": 4, "rain_days": 4}', tool_call_id="call_1"),
        _said("assistant", "There you do: it stays between -3 °C and 4 °C, with rain or sleet on four days."),
    ]},
    {"id": "broken-arguments", "model": "small-1", "metadata": {"topic": "travel"}, "messages": [
        _said("user", "What is the weather in Oslo?"),
        _calls("call_7", "forecast", '{"city": "Oslo", "days": '),
        _said("tool", "Error: the arguments are no JSON.", tool_call_id="call_7"),
        _said("assistant", "Sorry, I could not look that up."),
    ]},
    {"id": "picture", "model": "small-1", "metadata": {"topic": "plants"}, "messages": [
        _said("user", [_part("What plant is this?"), _part("It has stood in the shade for a year.")]),
        _said("assistant", "From the leaves I would say it is a fern. Keep the soil moist and it will like the shade."),
    ]},
    {"id": "unanswered", "model": "small-1", "metadata": {"topic": "calendar"}, "messages": [
        _said("user", "Book a table for four tonight."),
        _calls("call_3", "book_table", '{"guests": 4, "when": "tonight"}'),
    ]},
]  # fmt: skip


def make(folder: Path) -> Path:
    """Write the sample's files into ``folder/sample`` and a store of them beside it; the store's path."""
    files = folder / "sample"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir(parents=True)
    for model in MODELS:
        (files / f"shop_{model.name}.json").write_text(
            json.dumps(results(model), ensure_ascii=False, indent=1), encoding="utf-8"
        )
    lines = (json.dumps(chat, ensure_ascii=False) for chat in CHATS)
    (files / "chats.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    target = folder / "sample.duckdb"
    for old in (target, target.with_name("sample.duckdb.wal")):
        old.unlink(missing_ok=True)
    with open_store(target) as store:
        report = store.ingest(files, progress=False)
    if report.errors:
        raise SystemExit(repr(report))
    return target


if __name__ == "__main__":
    print(f"Made {make(Path(__file__).resolve().parent)}")
