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
from kern_nb.magics.commands import SQL
from kern_nb.magics.verb import Verb

_SQL_HINT = "Write the SELECT below the line, or on it: df = %kern_sql SELECT ..."
# The options that may precede the SQL of a line; in the SQL itself, -- starts a comment.
_SQL_OPTIONS = re.compile(r"\A\s*(?:--(?:store|into)(?:\s+|=)\S+\s+)*")


@magics_class
class KernMagics(Magics):
    """The two magics."""

    @property
    def _variables(self) -> dict[str, Any]:
        return self.shell.user_ns if self.shell else {}

    @no_var_expand
    @line_cell_magic
    def kern(self, line: str, cell: str | None = None) -> Any:  # noqa: D102 - its docstring is the list of the verbs
        line, silent = _strip_semicolon(line)
        words = parser.split(line, self._variables)
        if not words and cell is not None:
            raise BadUsage("%%kern needs a verb that takes the cell.", "For example: %%kern run AGENT")
        if not words or words[0] == "help" or words[0] in parser.HELP_FLAGS:
            print(help_pages.verb_help(parser.find_verb(words[1])) if words[1:] else help_pages.overview())  # noqa: T201 - help is printed
            return None
        verb = parser.find_verb(words[0])
        if parser.HELP_FLAGS & set(words[1:]):
            print(help_pages.verb_help(verb))  # noqa: T201 - help is printed
            return None
        _require_body(verb, line, cell)
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
        query = _SQL_OPTIONS.sub("", line) if cell is None else cell
        options = line.removesuffix(query) if cell is None else line
        words = parser.split(_strip_semicolon(options)[0], self._variables)
        args = _call(SQL, lambda: parser.parse(SQL, words))
        if args.into is not None and not args.into.isidentifier():
            raise BadUsage(f"--into must be a variable name, got {args.into!r}.", "For example: %%kern_sql --into df")
        if not query.strip():
            raise BadUsage("The cell has no SQL.", _SQL_HINT)
        args.query, args.params = query, parser.parameters(query, self._variables)
        result = _call(SQL, lambda: SQL.call(args))
        if args.into is None:
            return result
        self._variables[args.into] = result
        return None


KernMagics.kern.__doc__ = help_pages.overview()
KernMagics.kern_sql.__doc__ = help_pages.verb_help(SQL)


def _require_body(verb: Verb, line: str, cell: str | None) -> None:
    """Raise BadUsage if a verb that takes the body of a cell has none, or another verb has one."""
    if verb.takes_cell and cell is None:
        raise BadUsage(f"{verb.name} takes the text of a cell.", f"Start the cell with %%kern {line.strip()}")
    if verb.takes_cell and not (cell or "").strip():
        raise BadUsage("The cell has no text.", f"Write the agent's input below the line: {verb.usage}")
    if not verb.takes_cell and cell is not None:
        raise BadUsage(f"{verb.name} does not take the text of a cell.", f"Write it on a line: %kern {line.strip()}")


def _call(verb: Verb, call: Callable[[], Any]) -> Any:
    """Call, and add the verb's usage to an error without a hint, so that each error has two lines."""
    try:
        return call()
    except KernError as error:
        error.hint = error.hint or f"Usage: {verb.usage}"
        raise


def _strip_semicolon(line: str) -> tuple[str, bool]:
    """Return the line, and whether it ended in a ``;``, which hides the value."""
    stripped = line.rstrip()
    return (stripped[:-1], True) if stripped.endswith(";") else (line, False)


def _add_body(lines: list[str]) -> list[str]:
    """Add an empty body to a cell magic without one, which IPython would refuse with an error of its own."""
    if len(lines) == 1 and re.match(r"%%kern(_sql)?\b", lines[0]):
        return [lines[0].rstrip("\n") + "\n", "\n"]
    return lines


def register(shell: InteractiveShell) -> None:
    """Add the magics to a shell."""
    shell.register_magics(KernMagics(shell))
    shell.input_transformers_cleanup.append(_add_body)


def unregister(shell: InteractiveShell) -> None:
    """Remove the magics, including those that an earlier import of this module added."""
    for kind in ("line", "cell"):
        for name in ("kern", "kern_sql"):
            shell.magics_manager.magics[kind].pop(name, None)
    shell.magics_manager.registry.pop(KernMagics.__name__, None)
    transformers = shell.input_transformers_cleanup
    transformers[:] = [function for function in transformers if getattr(function, "__module__", "") != __name__]
