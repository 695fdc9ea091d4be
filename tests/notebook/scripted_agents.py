"""Agents without a model, for the tests of `%%kern run` and `%kern continue`."""

from __future__ import annotations

from kern_nb.agent import Agent, tool
from kern_nb.models.scripted import ScriptedModel, call
from kern_nb.records import Message


def echo(messages: list[Message]) -> str:
    """Say again what the user said."""
    return f"You said {messages[-1].content!r}."


class Shredder:
    """A tool that must not run unasked; it counts."""

    def __init__(self) -> None:
        self.shredded: list[str] = []

    def delete_file(self, path: str) -> str:
        """Delete a file."""
        self.shredded.append(path)
        return f"deleted {path}"


def shredding(shredder: Shredder, *paths: str, **options: object) -> Agent:
    """An agent that asks to delete files, each in a run of its own, and then says that it is done."""
    script = [step for path in paths for step in (call("delete_file", path=path), "Done.")]
    return Agent(ScriptedModel(script), tools=[tool(shredder.delete_file, requires_confirmation=True)], **options)


def parrot(notebook, variable="parrot", **options):
    """An agent in a variable, which says again what it is told."""
    agent = Agent(ScriptedModel(echo), **{"id": variable} | options)
    notebook.shell.user_ns[variable] = agent
    return agent
