"""From the line of a magic to parsed arguments, with two-line errors: what is wrong, and what would be right."""

from __future__ import annotations

import json
import os
import re
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from functools import cache
from typing import Any, NoReturn

from kern_nb.errors import BadUsage, did_you_mean
from kern_nb.magics.commands import VERBS
from kern_nb.magics.verb import Verb
from kern_nb.operations.agent_registry import is_agent

HELP_FLAGS = frozenset({"-h", "--help"})
# Quoted words are skipped as the lexer reads them; on Windows a backslash escapes nothing.
_QUOTED = r""" "[^"]*" | '[^']*' """ if os.name == "nt" else r""" \\. | "(?:[^"\\]|\\.)*" | '[^']*' """
_JSON_START = re.compile(rf"{_QUOTED} | (?<!\S)(?P<json>[{{\[])", re.VERBOSE | re.DOTALL)
_MAX_INVALID_STARTS = 100
"""Give up looking for JSON after this many brackets that start none; each may be read to the end of the line."""
_DECODER = json.JSONDecoder()
_VARIABLE = re.compile(r"\$(?P<name>[A-Za-z_]\w*)(?P<suffix>/.*)?\Z", re.DOTALL)


class _Parser(ArgumentParser):
    """An argument parser that raises where argparse would print and exit."""

    def __init__(self, verb: Verb) -> None:
        super().__init__(verb.command, add_help=False, allow_abbrev=False)
        self._usage = verb.usage
        for argument in verb.arguments:
            display: dict[str, Any] = {"metavar": argument.value} if argument.value else {"action": "store_true"}
            self.add_argument(argument.flag, **display, **argument.settings)

    def error(self, message: str) -> NoReturn:
        complaint, _, hint = re.sub(r"^argument \S+: (?=unknown)", "", message).partition("\n")
        raise BadUsage(f"{self.prog}: {complaint.rstrip('.')}.", hint or f"Usage: {self._usage}")


_parser = cache(_Parser)


def parse(verb: Verb, words: list[str]) -> Namespace:
    """Parse the arguments of a verb; raise BadUsage if one is missing, unknown or invalid."""
    args, unknown = _parser(verb).parse_known_args(words)
    if unknown:
        flags = [argument.flag for argument in verb.arguments if argument.is_option]
        noun = "option" if unknown[0].startswith("-") else "argument"
        suggestion = did_you_mean(unknown[0].partition("=")[0], flags) if noun == "option" else ""
        raise BadUsage(f"{verb.command}: unknown {noun} {unknown[0]!r}.", suggestion or f"Usage: {verb.usage}")
    return args


def find_verb(name: str) -> Verb:
    """Return the verb of a name; raise BadUsage if there is none, with a hint that names a similar one."""
    verbs = {verb.name: verb for verb in VERBS}
    if name not in verbs:
        raise BadUsage(f"Unknown verb {name!r}.", f"{did_you_mean(name, verbs)} %kern help lists all verbs.".strip())
    return verbs[name]


def split(line: str, variables: Mapping[str, Any]) -> list[str]:
    """Split a line into words as a shell would. ``$name``, or ``$name/2``, takes the value of that variable.

    A JSON object or list is one word, without quotes around it.

    Raises:
        BadUsage: A quote is not closed, or a variable is not defined or cannot be a word.
    """
    words: list[str] = []
    end = invalid = 0
    for match in _JSON_START.finditer(line):
        start = match.start()
        if match["json"] is None or start < end:
            continue
        json_end = _json_end(line, start)
        if json_end is None:
            invalid += 1
            if invalid == _MAX_INVALID_STARTS:
                break
            continue
        words += [*_lex(line[end:start], variables), line[start:json_end]]
        end = json_end
    return words + _lex(line[end:], variables)


def _json_end(line: str, start: int) -> int | None:
    """Return the end of the JSON that starts here; None if it is invalid, or only the start of a longer word."""
    try:
        end = _DECODER.raw_decode(line, start)[1]
    except (ValueError, RecursionError):
        return None
    return end if not line[end : end + 1].strip() else None


def _lex(line: str, variables: Mapping[str, Any]) -> list[str]:
    """Split a part of a line without JSON."""
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    if os.name == "nt":
        lexer.escape = ""  # there, a backslash is part of a path
    try:
        words = list(lexer)
    except ValueError as error:
        raise BadUsage(f"The line does not parse: {str(error).lower()}.", "Close the quote, or escape it.") from error
    return [_substitute(word, variables) for word in words]


def _substitute(word: str, variables: Mapping[str, Any]) -> str:
    match = _VARIABLE.match(word)
    if match is None:
        return word
    value = variable(match["name"], variables)
    text = _reference(value, match["name"])
    if not isinstance(text, (str, int, os.PathLike)):
        raise BadUsage(
            f"${match['name']} must be text, a number, a path or a record, got {type(value).__name__}.",
            "Assign its text to a variable.",
        )
    return f"{text}{match['suffix'] or ''}"


def _reference(value: Any, name: str) -> Any:
    """Return what names a record in a line: the id of a session, run or requirement, or an agent's variable."""
    if is_agent(value):
        return name
    if isinstance(requirement_id := getattr(value, "requirement_id", None), str):
        return requirement_id
    session_id, run_index = getattr(value, "session_id", None), getattr(value, "run_index", None)
    if not isinstance(session_id, str):
        return value
    return f"{session_id}/{run_index}" if isinstance(run_index, int) else session_id


def parameters(query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables that a query uses as ``$name``, and no others; raise BadUsage if one is not defined."""
    from kern_nb.db.sql_parameters import number_parameters

    return {name: variable(name, variables) for name in number_parameters(query)[1]}


def variable(name: str, variables: Mapping[str, Any]) -> Any:
    """Return the value of a Python variable; raise BadUsage if it is not defined."""
    if name not in variables:
        public = (other for other in variables if not other.startswith("_"))
        hint = did_you_mean(name, public, f"Assign it: {name} = ...")
        raise BadUsage(f"The Python variable {name!r} of ${name} is not defined.", hint)
    return variables[name]
