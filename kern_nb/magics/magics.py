"""`%kern` and `%%kern_sql` in IPython. A magic is: parse, one public call, return.

IPython's own decorator for a trailing ``;`` is not used: it reads the line as Python, which from Python 3.12 on
fails at a date like 2026-01-05.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand

from kern_nb.errors import BadUsage, KernError
from kern_nb.magics import help_pages, parser
from kern_nb.magics.grammar import SQL, Verb

NAMES = ("kern", "kern_sql")
_BODY = "Write the SELECT below the line, or on it: df = %kern_sql SELECT ..."
# The options that may stand before the SQL of a line; in the SQL itself, -- begins a comment.
_OPTIONS = re.compile(r"\s*((?:--(?:store|into)(?:\s+|=)\S+\s+)*)(.*)\Z", re.DOTALL)


@magics_class
class KernMagics(Magics):
    """The two magics."""

    @property
    def _variables(self) -> dict[str, Any]:
        return self.shell.user_ns if self.shell else {}

    @no_var_expand
    @line_cell_magic
    def kern(self, line: str, cell: str | None = None) -> Any:  # noqa: D102 - its docstring is the list of the verbs
        line, silent = _without_semicolon(line)
        words = parser.split(line, self._variables)
        if not words and cell is not None:
            raise BadUsage("A cell needs a verb that takes it.", "For example: %%kern run AGENT")
        if not words or words[0] == "help" or words[0] in parser.HELP_FLAGS:
            print(help_pages.verb_help(parser.find_verb(words[1])) if words[1:] else help_pages.overview())  # noqa: T201 - help is printed
            return None
        verb = parser.find_verb(words[0])
        if parser.HELP_FLAGS & set(words[1:]):
            print(help_pages.verb_help(verb))  # noqa: T201 - help is printed
            return None
        _require_place(verb, line, cell)
        args = _call(verb, lambda: parser.parse(verb, words[1:]))
        args.cell = (cell or "").removesuffix("\n")
        value = _call(verb, lambda: verb.call(args))
        return None if silent else value

    @no_var_expand
    @line_cell_magic
    def kern_sql(self, line: str, cell: str | None = None) -> Any:  # noqa: D102 - its docstring is the help
        if parser.HELP_FLAGS & set(line.split()):
            print(help_pages.verb_help(SQL))  # noqa: T201 - help is printed
            return None
        options, query = (line, cell) if cell is not None else _sql_of(line)
        words = parser.split(_without_semicolon(options)[0], self._variables)
        args = _call(SQL, lambda: parser.parse(SQL, words))
        if args.into is not None and not args.into.isidentifier():
            raise BadUsage(f"--into {args.into!r} is no name of a variable.", "For example: %%kern_sql --into df")
        if not query.strip():
            raise BadUsage("There is no SQL in the cell.", _BODY)
        args.query, args.params = query, parser.parameters(query, self._variables)
        found = _call(SQL, lambda: SQL.call(args))
        if args.into is None:
            return found
        self._variables[args.into] = found
        return None


KernMagics.kern.__doc__ = help_pages.overview()
KernMagics.kern_sql.__doc__ = help_pages.verb_help(SQL)


def _require_place(verb: Verb, line: str, cell: str | None) -> None:
    """See to it that a verb is written where it belongs: on a line, or above the text it takes.

    Raises:
        BadUsage: it is not.
    """
    if verb.takes_cell and cell is None:
        raise BadUsage(
            f"{verb.name} takes the text of its cell, which %kern has not.",
            f"Begin the cell with %%kern {line.strip()}",
        )
    if verb.takes_cell and not (cell or "").strip():
        raise BadUsage("There is no text in the cell.", f"Write below the line what is to be said: {verb.usage}")
    if not verb.takes_cell and cell is not None:
        raise BadUsage(f"{verb.name} takes no text of a cell.", f"Write it on a line: %kern {line.strip()}")


def _call(verb: Verb, call: Callable[[], Any]) -> Any:
    """What a call gives. An error that says nothing of what to do next gets the verb's usage, so each has two lines."""
    try:
        return call()
    except KernError as error:
        error.hint = error.hint or f"Usage: {verb.usage}"
        raise


def _without_semicolon(line: str) -> tuple[str, bool]:
    """The line, and whether a ``;`` at its end asks for silence."""
    bare = line.rstrip()
    return (bare[:-1], True) if bare.endswith(";") else (line, False)


def _sql_of(line: str) -> tuple[str, str]:
    """The options and the SQL of `%kern_sql` on one line."""
    found = _OPTIONS.match(line)
    return (found[1], found[2]) if found else ("", line)


def _with_body(lines: list[str]) -> list[str]:
    """Give a cell magic without a body an empty line: IPython would refuse it in its own way."""
    if len(lines) == 1 and re.match(r"%%kern(_sql)?\b", lines[0]):
        return [lines[0].rstrip("\n") + "\n", "\n"]
    return lines


def register(shell: InteractiveShell) -> None:
    """Add the magics to a shell."""
    shell.register_magics(KernMagics(shell))
    shell.input_transformers_cleanup.append(_with_body)


def unregister(shell: InteractiveShell) -> None:
    """Take them away, also those that an earlier import of this module added."""
    for kind in ("line", "cell"):
        for name in NAMES:
            shell.magics_manager.magics[kind].pop(name, None)
    shell.magics_manager.registry.pop(KernMagics.__name__, None)
    transformers = shell.input_transformers_cleanup
    transformers[:] = [one for one in transformers if getattr(one, "__module__", "") != __name__]
