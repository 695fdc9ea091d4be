"""What a verb is made of: its name, its arguments, what it calls. The table of the verbs is in `grammar`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Argument:
    """An argument of a verb.

    Attributes:
        flag: Its name, or its flag.
        value: What stands for its value in the usage; empty where it takes none.
        help: What it means.
        offers: What Tab offers for it: a name in `offers.OFFERS`.
        settings: What else `argparse` is told.
    """

    flag: str
    value: str
    help: str
    offers: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_option(self) -> bool:
        """Whether it is written with a flag."""
        return self.flag.startswith("-")

    @property
    def is_optional(self) -> bool:
        """Whether it may be left out."""
        return not self.settings.get("required", False) if self.is_option else self.settings.get("nargs") in ("*", "?")

    @property
    def written(self) -> str:
        """The argument as a usage line has it."""
        value = self.value + ("..." if self.settings.get("nargs") in ("*", "+") else "")
        return f"{self.flag} {value}".rstrip() if self.is_option else value


@dataclass(frozen=True, eq=False)
class Verb:
    """A verb of `%kern`, or a magic of its own.

    Attributes:
        name: The verb.
        summary: What it does, in a line.
        call: What it calls with the parsed arguments; its value is the value of the magic.
        example: A line as one would write it.
        python: The same in Python.
        arguments: What may follow it.
        more: What else is to be known.
        prefix: What stands before its name; two percent signs where it takes the rest of the cell.
    """

    name: str
    summary: str
    call: Callable[[Namespace], object]
    example: str
    python: str
    arguments: tuple[Argument, ...] = ()
    more: str = ""
    prefix: str = "%kern "

    @property
    def command(self) -> str:
        """The verb as one writes it."""
        return self.prefix + self.name

    @property
    def takes_cell(self) -> bool:
        """Whether what is below the line belongs to it."""
        return self.prefix.startswith("%%")

    @property
    def usage(self) -> str:
        """The command with all it takes."""
        words = [f"[{a.written}]" if a.is_optional else a.written for a in self.arguments if not a.is_option]
        options = [a for a in self.arguments if a.is_option]
        words += [a.written for a in options if not a.is_optional]
        return " ".join([self.command, *words, *(f"[{a.written}]" for a in options if a.is_optional)])


def arg(flag: str, value: str, help: str, offers: str = "", **settings: Any) -> Argument:
    """An argument that has a value."""
    return Argument(flag, value, help, offers, settings)


def switch(flag: str, help: str) -> Argument:
    """An option without a value."""
    return Argument(flag, "", help)


STORE = arg("--store", "NAME", "Another attached store than the one in use.", "stores")
