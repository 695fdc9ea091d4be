"""The data that defines a verb: its name, help, arguments and handler. The verbs themselves are in `commands`."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kern_nb.errors import did_you_mean

FRAMES = ("sessions", "runs", "messages", "tool_calls", "scores")

# Written out, because importing the records takes longer than loading this extension may. A test compares them.
STATUSES = ("PENDING", "RUNNING", "PAUSED", "COMPLETED", "CANCELLED", "ERROR", "REGENERATED", "INTERRUPTED")

PLOTS = ("runs", "tools", "tree")


@dataclass(frozen=True, eq=False)
class Argument:
    """An argument of a verb.

    Attributes:
        flag: Its flag (``--store``), or the name of a positional argument.
        value: The placeholder of its value in the usage line; empty for a switch.
        help: What it means.
        source: What Tab completes it from: a key of `completion_sources.SOURCES`, or empty.
        settings: Further arguments of `argparse.ArgumentParser.add_argument`.
    """

    flag: str
    value: str
    help: str
    source: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_option(self) -> bool:
        """Whether it is written with a flag."""
        return self.flag.startswith("-")

    @property
    def is_optional(self) -> bool:
        """Whether it may be omitted."""
        return not self.settings.get("required", False) if self.is_option else self.settings.get("nargs") in ("*", "?")

    @property
    def usage(self) -> str:
        """The argument in a usage line."""
        value = self.value + ("..." if self.settings.get("nargs") in ("*", "+") else "")
        return f"{self.flag} {value}".rstrip() if self.is_option else value


@dataclass(frozen=True, eq=False)
class Verb:
    """A verb of `%kern`, or a magic of its own.

    Attributes:
        name: The verb.
        summary: What it does, in one sentence.
        call: The handler of the parsed arguments; what it returns is the value of the magic.
        arguments: Its arguments.
        example: A line that uses it.
        python: The same in Python.
        details: Further help.
        prefix: What precedes the name; two percent signs if the verb takes the body of the cell.
    """

    name: str
    summary: str
    call: Callable[[Namespace], object]
    arguments: tuple[Argument, ...]
    example: str
    python: str
    details: str = ""
    prefix: str = "%kern "

    @property
    def command(self) -> str:
        """The verb with its magic."""
        return self.prefix + self.name

    @property
    def takes_cell(self) -> bool:
        """Whether it takes the body of the cell."""
        return self.prefix.startswith("%%")

    @property
    def usage(self) -> str:
        """The command with all its arguments."""
        words = [f"[{a.usage}]" if a.is_optional else a.usage for a in self.arguments if not a.is_option]
        options = [a for a in self.arguments if a.is_option]
        words += [a.usage for a in options if not a.is_optional]
        return " ".join([self.command, *words, *(f"[{a.usage}]" for a in options if a.is_optional)])


def verb(name: str, summary: str, call: Callable[[Namespace], object], *arguments: Argument, **texts: str) -> Verb:
    """Define a verb; ``texts`` are its further fields."""
    return Verb(name, summary, call, arguments, **texts)


def arg(flag: str, value: str, help: str, source: str = "", **settings: Any) -> Argument:
    """Define an argument that has a value."""
    return Argument(flag, value, help, source, settings)


def switch(flag: str, help: str) -> Argument:
    """Define an option without a value."""
    return Argument(flag, "", help)


def choice(noun: str, words: Sequence[str], normalize: Callable[[str], str] = str) -> Callable[[str], str]:
    """Define an argparse type that accepts one of these words. The second line of its error is the hint."""

    def check(word: str) -> str:
        if normalize(word) in words:
            return normalize(word)
        hint = did_you_mean(normalize(word), words, f"Choose from {', '.join(words)}.")
        raise ArgumentTypeError(f"unknown {noun} {word!r}.\n{hint}")

    return check


STORE = arg("--store", "NAME", "An attached store other than the one in use.", "stores")
AGENT = arg("agent", "AGENT", "An agent, team or workflow: its variable, id or name.", "agents")
STATUS = arg(
    "--status",
    "STATUS",
    "Only sessions whose latest run has this status.",
    "statuses",
    type=choice("status", STATUSES, str.upper),
)
