"""From a line of a magic to arguments, with two-line errors that say what would have been right."""

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
from kern_nb.magics.grammar import VERBS, Verb
from kern_nb.operations.agent_registry import is_agent

HELP_FLAGS = frozenset({"-h", "--help"})
# Quoted words are skipped as the lexer reads them; on Windows a backslash escapes nothing.
_QUOTED = r""" "[^"]*" | '[^']*' """ if os.name == "nt" else r""" \\. | "(?:[^"\\]|\\.)*" | '[^']*' """
_JSON_START = re.compile(rf"{_QUOTED} | (?<!\S)(?P<json>[{{\[])", re.VERBOSE | re.DOTALL)
_MOST_STARTS = 100
"""So many brackets that begin no JSON are looked at; each may be followed to the end of the line."""
_DECODER = json.JSONDecoder()
_VARIABLE = re.compile(r"\$(?P<name>[A-Za-z_]\w*)(?P<rest>/.*)?\Z", re.DOTALL)


class _Parser(ArgumentParser):
    """An argument parser that raises where argparse would print and exit."""

    def __init__(self, verb: Verb) -> None:
        super().__init__(verb.command, add_help=False, allow_abbrev=False)
        self._usage = verb.usage
        for argument in verb.arguments:
            shown: dict[str, Any] = {"metavar": argument.value} if argument.value else {"action": "store_true"}
            self.add_argument(argument.flag, **shown, **argument.settings)

    def error(self, message: str) -> NoReturn:
        complaint, _, hint = re.sub(r"^argument \S+: (?=there is)", "", message).partition("\n")
        raise BadUsage(f"{self.prog}: {complaint.rstrip('.')}.", hint or f"Usage: {self._usage}")


_parser = cache(_Parser)


def parse(verb: Verb, words: list[str]) -> Namespace:
    """The arguments of a verb.

    Raises:
        BadUsage: they do not fit.
    """
    found, unknown = _parser(verb).parse_known_args(words)
    if unknown:
        flags = [argument.flag for argument in verb.arguments if argument.is_option]
        noun = "option" if unknown[0].startswith("-") else "argument"
        near = did_you_mean(unknown[0].partition("=")[0], flags) if noun == "option" else ""
        raise BadUsage(f"{verb.command} takes no {noun} {unknown[0]!r}.", near or f"Usage: {verb.usage}")
    return found


def find_verb(name: str) -> Verb:
    """The verb of a name.

    Raises:
        BadUsage: there is none; the hint names one that is spelt like it.
    """
    known = {verb.name: verb for verb in VERBS}
    if name not in known:
        raise BadUsage(
            f"%kern has no verb {name!r}.", f"{did_you_mean(name, known)} %kern help lists all verbs.".strip()
        )
    return known[name]


def split(line: str, variables: Mapping[str, Any]) -> list[str]:
    """The words of a line as a shell would see them. ``$name``, or ``$name/2``, takes the value of that variable.

    A JSON object or list is a word as it is, so that it needs no quotes around it.

    Raises:
        BadUsage: a quote is not closed, there is no such variable, or its value is no word.
    """
    words: list[str] = []
    done = failed = 0
    for match in _JSON_START.finditer(line):
        start = match.start()
        if match["json"] is None or start < done:
            continue
        end = _json_end(line, start)
        if end is None:
            failed += 1
            if failed == _MOST_STARTS:
                break
            continue
        words += [_with_value(word, variables) for word in _lexed(line[done:start])]
        words.append(line[start:end])
        done = end
    return words + [_with_value(word, variables) for word in _lexed(line[done:])]


def _json_end(line: str, start: int) -> int | None:
    """Where the JSON that begins at a place ends; None where there is none, or where it is only the start of a word."""
    try:
        end = _DECODER.raw_decode(line, start)[1]
    except (ValueError, RecursionError):
        return None
    return end if not line[end : end + 1].strip() else None


def _lexed(line: str) -> list[str]:
    lexer = shlex.shlex(line, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    if os.name == "nt":
        lexer.escape = ""  # there, a backslash is part of a path
    try:
        return list(lexer)
    except ValueError as error:
        raise BadUsage(f"The line does not parse: {str(error).lower()}.", "Close the quote, or escape it.") from error


def _with_value(word: str, variables: Mapping[str, Any]) -> str:
    found = _VARIABLE.match(word)
    if found is None:
        return word
    value = variable(found["name"], variables)
    word = _reference(value, found["name"])
    if not isinstance(word, (str, int, os.PathLike)):
        raise BadUsage(
            f"${found['name']} is of type {type(value).__name__}, which no word of a line can be.",
            "Put its text in a variable.",
        )
    return f"{word}{found['rest'] or ''}"


def _reference(value: Any, name: str) -> Any:
    """What stands for a record in a line: a session's id, a run's place, a requirement's id, an agent's variable."""
    if is_agent(value):
        return name
    if isinstance(found := getattr(value, "requirement_id", None), str):
        return found
    session_id, run_index = getattr(value, "session_id", None), getattr(value, "run_index", None)
    if not isinstance(session_id, str):
        return value
    return f"{session_id}/{run_index}" if isinstance(run_index, int) else session_id


def parameters(query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables that a query names as ``$name``, and no others.

    Raises:
        BadUsage: there is no such variable.
    """
    from kern_nb.db.user_sql import number_parameters

    return {name: variable(name, variables) for name in number_parameters(query)[1]}


def variable(name: str, variables: Mapping[str, Any]) -> Any:
    """The value of a Python variable.

    Raises:
        BadUsage: there is none.
    """
    if name not in variables:
        hint = did_you_mean(
            name, (known for known in variables if not known.startswith("_")), f"Assign it: {name} = ..."
        )
        raise BadUsage(f"${name} stands for a Python variable, and there is none called {name!r}.", hint)
    return variables[name]
