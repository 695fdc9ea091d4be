"""The typed events of runs. `kern_nb.run` has the public names; which class an event of a kind has is defined here."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from kern_nb.events import agent, base, team, workflow
from kern_nb.events.base import BaseRunOutputEvent
from kern_nb.records import SessionType, ToolCall


def _classes(module: Any) -> list[type[BaseRunOutputEvent]]:
    own = (value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__)
    return [value for value in own if issubclass(value, BaseRunOutputEvent) and value.event]


_MODULES: dict[SessionType, Any] = {"agent": agent, "team": team, "workflow": workflow}
_BY_KIND = {
    (owner, kind): cls
    for owner, module in _MODULES.items()
    for cls in _classes(module)
    for kind in cls.__bases__
    if kind.__module__ == base.__name__
}
_BY_VALUE = {cls.event: cls for module in _MODULES.values() for cls in _classes(module)}


def event_class(owner: SessionType, kind: type[BaseRunOutputEvent]) -> type[BaseRunOutputEvent] | None:
    """Return the class of an agent's, team's or workflow's events of a kind; None if it has none of the kind."""
    return _BY_KIND.get((owner, kind))


def event_from_dict(values: dict[str, Any]) -> BaseRunOutputEvent:
    """Return the event of `BaseRunOutputEvent.to_dict`; fields that its class lacks are left out."""
    cls = _BY_VALUE.get(values.get("event", ""), BaseRunOutputEvent)
    known = {item.name: values[item.name] for item in fields(cls) if item.name in values}
    if isinstance(tool := known.get("tool"), dict):
        known["tool"] = ToolCall.model_validate(tool)
    if isinstance(tools := known.get("tools"), list):
        known["tools"] = [ToolCall.model_validate(item) for item in tools]
    if isinstance(index := known.get("step_index"), list):
        known["step_index"] = tuple(index)
    return cls(**known)


def event_values() -> frozenset[str]:
    """Return every value of ``event``."""
    return frozenset(_BY_VALUE)
