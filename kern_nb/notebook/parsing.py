"""From a line of a magic to a call: words, arguments, and two-line errors that say what would have been right."""

from __future__ import annotations

import os
import re
import shlex
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping
from functools import cache
from typing import Any, NoReturn

from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.notebook.grammar import SQL, VERBS, Verb, verb

HELP = ("-h", "--help")
_LIST = "%kern help lists the verbs."
_VARIABLE = re.compile(r"\$(?P<name>[A-Za-z_]\w*)(?=/|\Z)")


class _Parser(ArgumentParser):
    """An argument parser that raises where argparse would print and exit."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"^argument \S+: (?=there is)", "", message)
        raise BadUsage(f"{self.prog}: {message.rstrip('.')}.", f"Usage: {usage(self)}")


def usage(parser: ArgumentParser) -> str:
    """The usage on one line."""
    return " ".join(parser.format_usage().removeprefix("usage:").split())


@cache
def parser(of: Verb) -> ArgumentParser:
    """The parser of a verb, made once."""
    made = _Parser(of.command, add_help=False, allow_abbrev=False, formatter_class=RawDescriptionHelpFormatter)
    for argument in of.arguments:
        made.add_argument(*argument.flags, help=argument.help, **argument.settings)
    return made


def parse(of: Verb, words: list[str]) -> Namespace:
    """The arguments of a verb.

    Raises:
        BadUsage: they do not fit.
    """
    found, unknown = parser(of).parse_known_args(words)
    if unknown:
        flags = [flag for argument in of.arguments for flag in argument.flags if argument.is_option]
        noun = "option" if unknown[0].startswith("-") else "argument"
        hint = did_you_mean(unknown[0], flags) if noun == "option" else ""
        raise BadUsage(f"{of.command} has no {noun} {unknown[0]!r}.", f"{hint} Usage: {usage(parser(of))}".strip())
    return found


def find_verb(name: str) -> Verb:
    """The verb of a name.

    Raises:
        BadUsage: there is none; the hint names one that is spelt like it.
    """
    names = [verb.name for verb in VERBS]
    if name not in names:
        raise BadUsage(f"%kern has no verb {name!r}.", f"{did_you_mean(name, names)} {_LIST}".strip())
    return verb(name)


def split(line: str, variables: Mapping[str, Any] | None = None) -> list[str]:
    """The words of a line as a shell would see them; a word that begins with ``$name`` takes that variable's value.

    Raises:
        BadUsage: a quote is not closed, or there is no such variable.
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    if os.name == "nt":
        lexer.escape = ""  # there, a backslash is part of a path
    try:
        words = list(lexer)
    except ValueError as error:
        raise BadUsage(f"%kern cannot read the line: {str(error).lower()}.", "Close the quote, or escape it.") from error
    return words if variables is None else [_VARIABLE.sub(lambda found: _value(found["name"], variables), w) if w.startswith("$") else w for w in words]


def _value(name: str, variables: Mapping[str, Any]) -> str:
    if name not in variables:
        raise BadUsage(f"There is no variable {name!r} for ${name}.", did_you_mean(name, variables, "Assign it first."))
    return str(variables[name])


def overview() -> str:
    """What `%kern` alone prints: the verbs, a line each."""
    width = max(len(verb.name) for verb in VERBS)
    lines = [f"  %kern {verb.name:<{width}}  {verb.summary}" for verb in VERBS]
    return "\n".join(["Git for agent sessions.", "", *lines, f"  %%{SQL.name}", "", "%kern VERB --help says more."])


def verb_help(of: Verb) -> str:
    """What `--help` prints: usage, arguments, an example, the same in Python."""
    text = parser(of).format_help().removeprefix("usage:").strip()
    parts = [of.summary, f"Usage: {text}", of.more, f"Example: {of.example}", f"In Python: {of.python}"]
    return "\n\n".join(part for part in parts if part)
