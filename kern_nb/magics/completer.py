"""Tab after our magics and in `%%kern_sql`, by IPython's matchers (API v2), which JupyterLab asks through the kernel.

The API is provisional: it is used in this file only.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from IPython.core.completer import SimpleCompletion, context_matcher

from kern_nb.magics.completion_sources import OFFERS
from kern_nb.magics.grammar import SQL, VERBS, Argument, Verb
from kern_nb.magics.kinds import FRAMES

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext, SimpleMatcherResult
    from IPython.core.interactiveshell import InteractiveShell

IDENTIFIER = "kern_nb"
_MAGIC = re.compile(r"(?:^|[=(\s])(?P<magic>%%?kern|%%?kern_sql)\s+(?P<words>.*)\Z", re.DOTALL)
_SQL_CELL = re.compile(r"\s*%%kern_sql\b")
_TEXT_CELL = re.compile(r"\s*%%kern\b")
# A word is what has no spaces but within quotes, of which the last may still be open.
_WORD = re.compile(r"""(?:[^\s"']|"[^"]*(?:"|\Z)|'[^']*(?:'|\Z))+""")

_KINDS = {
    "agent_ids": "agent",
    "references": "session",
    "statuses": "status",
    "unfinished": "session",
    "waiting": "requirement",
}

Offered = Iterable[tuple[str, str]]
"""Words, each with the kind of thing it is."""


@context_matcher(identifier=IDENTIFIER, priority=1000)  # type: ignore[untyped-decorator,unused-ignore]
def complete(context: CompletionContext) -> SimpleMatcherResult:
    """What may stand at the cursor. IPython's own guesses are left out where there is something to offer."""
    line = context.text_until_cursor
    found = _MAGIC.search(line)
    if context.cursor_line > 0 and _TEXT_CELL.match(context.full_text):  # what is said to an agent is no code
        return _result(context.token, (), context.token)
    if found is None and context.cursor_line > 0 and _SQL_CELL.match(context.full_text):
        return _result(context.token, _columns(), context.token)
    if found is None:
        return {"completions": []}
    matches = list(_WORD.finditer(found["words"]))
    begun = matches and matches[-1].end() == len(found["words"])
    raw = matches.pop()[0] if begun else ""
    typed = [_unquoted(match[0]) for match in matches]
    fitting = [verb for verb in VERBS if verb.prefix.strip() == found["magic"]]
    if not fitting:
        offered = _arguments(SQL, typed, _unquoted(raw))
    elif not typed:
        offered = ((verb.name, "verb") for verb in fitting)
    else:
        verbs = [verb for verb in fitting if verb.name == typed[0]]
        offered = _arguments(verbs[0], typed[1:], _unquoted(raw)) if verbs else ()
    return _result(_unquoted(raw), offered, raw)


def _result(start: str, offered: Offered, replaced: str) -> SimpleMatcherResult:
    if replaced.startswith(("'", '"')):
        offered = ((word, kind) for word, kind in offered if kind != "option")
    fitting = [SimpleCompletion(_quoted(word, replaced), type=kind) for word, kind in offered if word.startswith(start)]
    if not fitting and replaced:
        # Python's names are no answer here, and Jedi would take seconds to find them: the word itself is offered.
        fitting = [SimpleCompletion(replaced, type="word")]
    return {"completions": fitting, "suppress": bool(fitting), "ordered": True, "matched_fragment": replaced}


def _arguments(verb: Verb, typed: list[str], word: str) -> Offered:
    """What may stand after the words of a verb."""
    options = {argument.flag: argument for argument in verb.arguments if argument.is_option}
    places = [argument for argument in verb.arguments if not argument.is_option]
    store = _value_of("--store", typed)
    if typed and typed[-1] in options and options[typed[-1]].value:
        yield from _values(options[typed[-1]], word, store)
        return
    if not word.startswith("-"):
        filled = sum(not w.startswith("-") and not _is_value(i, typed, options) for i, w in enumerate(typed))
        # From the first place on that takes any number of words, a word may be of this or of a later one.
        open_from = next((i for i, place in enumerate(places) if "nargs" in place.settings), len(places))
        for place in places[open_from:] if filled >= open_from else places[filled : filled + 1]:
            yield from _values(place, word, store)
    yield from ((flag, "option") for flag in options if flag not in typed)


def _is_value(place: int, typed: list[str], options: dict[str, Argument]) -> bool:
    before = options.get(typed[place - 1]) if place else None
    return before is not None and bool(before.value)


def _values(argument: Argument, word: str, store: str | None) -> Offered:
    if argument.offers:
        kind = _KINDS.get(argument.offers) or argument.offers.removesuffix("s")
        yield from ((value, kind) for value in OFFERS[argument.offers](word, store))


def _value_of(flag: str, typed: list[str]) -> str | None:
    place = typed.index(flag) + 1 if flag in typed else len(typed)
    return typed[place] if place < len(typed) else None


def _columns() -> Offered:
    """The views and their columns, for SQL."""
    from kern_nb.db.columns import FRAMES as COLUMNS

    yield from ((name, "view") for name in (*FRAMES, "requirements"))
    yield from ((name, "column") for name in dict.fromkeys(c.name for columns in COLUMNS.values() for c in columns))


def _unquoted(word: str) -> str:
    return word.replace('"', "").replace("'", "")


def _quoted(word: str, typed: str) -> str:
    """A word as it must be written, in quotes where it has to be or where they were begun."""
    if word.startswith("~"):
        return word
    return f"{typed[0]}{word}{typed[0]}" if typed[:1] in ("'", '"') else shlex.quote(word)


def register(shell: InteractiveShell) -> None:
    """Add the matcher to a shell."""
    shell.Completer.custom_matchers.append(complete)


def unregister(shell: InteractiveShell) -> None:
    """Take it away, also one that an earlier import of this module added."""
    matchers: list[Any] = shell.Completer.custom_matchers
    matchers[:] = [one for one in matchers if getattr(one, "matcher_identifier", "") != IDENTIFIER]
