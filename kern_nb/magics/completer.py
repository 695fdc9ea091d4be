"""Tab completion for the magics and `%%kern_sql`, as an IPython matcher (API v2); JupyterLab uses it via the kernel.

The API is provisional: it is used in this file only.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from IPython.core.completer import SimpleCompletion, context_matcher

from kern_nb.magics.commands import SQL, VERBS
from kern_nb.magics.completion_sources import SOURCES
from kern_nb.magics.verb import FRAMES, Argument, Verb

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext, SimpleMatcherResult
    from IPython.core.interactiveshell import InteractiveShell

IDENTIFIER = "kern_nb"
_MAGIC = re.compile(r"(?:^|[=(\s])(?P<magic>%%?kern|%%?kern_sql)\s+(?P<words>.*)\Z", re.DOTALL)
_SQL_CELL = re.compile(r"\s*%%kern_sql\b")
_TEXT_CELL = re.compile(r"\s*%%kern\b")
# A word has no spaces except within quotes; the last quote may still be open.
_WORD = re.compile(r"""(?:[^\s"']|"[^"]*(?:"|\Z)|'[^']*(?:'|\Z))+""")

_KINDS = {
    "agent_ids": "agent",
    "handoffs": "requirement",
    "references": "session",
    "statuses": "status",
    "unfinished_runs": "session",
}

Candidates = Iterable[tuple[str, str]]
"""Words, each with its kind."""


@context_matcher(identifier=IDENTIFIER, priority=1000)  # type: ignore[untyped-decorator,unused-ignore]
def complete(context: CompletionContext) -> SimpleMatcherResult:
    """Return the completions at the cursor. IPython's own are suppressed if there are any."""
    line = context.text_until_cursor
    match = _MAGIC.search(line)
    if context.cursor_line > 0 and _TEXT_CELL.match(context.full_text):  # the input of an agent is not code
        return _result(context.token, (), context.token)
    if match is None and context.cursor_line > 0 and _SQL_CELL.match(context.full_text):
        return _result(context.token, _sql_names(), context.token)
    if match is None:
        return {"completions": []}
    words = list(_WORD.finditer(match["words"]))
    is_partial = words and words[-1].end() == len(match["words"])
    fragment = words.pop()[0] if is_partial else ""
    previous = [_unquote(word[0]) for word in words]
    verbs = {verb.name: verb for verb in VERBS if verb.prefix.strip() == match["magic"]}
    if not verbs:
        candidates = _argument_candidates(SQL, previous, _unquote(fragment))
    elif not previous:
        candidates = ((name, "verb") for name in verbs)
    elif previous[0] in verbs:
        candidates = _argument_candidates(verbs[previous[0]], previous[1:], _unquote(fragment))
    else:
        candidates = ()
    return _result(_unquote(fragment), candidates, fragment)


def _result(prefix: str, candidates: Candidates, fragment: str) -> SimpleMatcherResult:
    """Return the candidates with a prefix, which replace the fragment before the cursor."""
    if fragment.startswith(("'", '"')):
        candidates = ((word, kind) for word, kind in candidates if kind != "option")
    completions = [
        SimpleCompletion(_quote(word, fragment), type=kind) for word, kind in candidates if word.startswith(prefix)
    ]
    if not completions and fragment:
        # Python's names do not fit here, and Jedi would take seconds to find them: the word itself is offered.
        completions = [SimpleCompletion(fragment, type="word")]
    return {"completions": completions, "suppress": bool(completions), "ordered": True, "matched_fragment": fragment}


def _argument_candidates(verb: Verb, previous: list[str], word: str) -> Candidates:
    options = {argument.flag: argument for argument in verb.arguments if argument.is_option}
    positionals = [argument for argument in verb.arguments if not argument.is_option]
    store = next((value for flag, value in pairwise(previous) if flag == "--store"), None)
    option_values = {i for i, flag in enumerate(previous, 1) if flag in options and options[flag].value}
    if len(previous) in option_values:
        yield from _value_candidates(options[previous[-1]], word, store)
        return
    if not word.startswith("-"):
        count = sum(not w.startswith("-") and i not in option_values for i, w in enumerate(previous))
        # From the first positional that takes any number of words, a word may belong to it or to a later one.
        repeatable = next(
            (i for i, argument in enumerate(positionals) if "nargs" in argument.settings), len(positionals)
        )
        for argument in positionals[repeatable:] if count >= repeatable else positionals[count : count + 1]:
            yield from _value_candidates(argument, word, store)
    yield from ((flag, "option") for flag in options if flag not in previous)


def _value_candidates(argument: Argument, word: str, store: str | None) -> Candidates:
    if argument.source:
        kind = _KINDS.get(argument.source) or argument.source.removesuffix("s")
        yield from ((value, kind) for value in SOURCES[argument.source](word, store))


def _sql_names() -> Candidates:
    from kern_nb.db.columns import FRAMES as COLUMNS

    yield from ((name, "view") for name in (*FRAMES, "requirements"))
    yield from ((name, "column") for name in dict.fromkeys(c.name for columns in COLUMNS.values() for c in columns))


def _unquote(word: str) -> str:
    return word.replace('"', "").replace("'", "")


def _quote(word: str, fragment: str) -> str:
    """Quote a word if it needs quotes, or with the quote that the fragment has opened."""
    if word.startswith("~"):
        return word
    return f"{fragment[0]}{word}{fragment[0]}" if fragment[:1] in ("'", '"') else shlex.quote(word)


def register(shell: InteractiveShell) -> None:
    """Add the matcher to a shell."""
    shell.Completer.custom_matchers.append(complete)


def unregister(shell: InteractiveShell) -> None:
    """Remove the matcher, including one that an earlier import of this module added."""
    matchers: list[Any] = shell.Completer.custom_matchers
    matchers[:] = [matcher for matcher in matchers if getattr(matcher, "matcher_identifier", "") != IDENTIFIER]
