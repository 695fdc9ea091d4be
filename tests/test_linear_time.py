"""No text makes anything of ours take time that grows with the square of its length.

Processor time is counted, and only against a limit that something linear is far below and something quadratic far
above: a text of these lengths takes a quadratic pattern many times as long.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import itertools
import pkgutil
import re
import signal
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

import kern_nb
from kern_nb.db import codec, user_sql
from kern_nb.errors import BadUsage
from kern_nb.magics import parser
from kern_nb.runtime import summaries
from kern_nb.text import formatting, html, markdown, worddiff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHARACTERS = 30_000
SECONDS_A_PATTERN = 0.4
"""Of the processor, for one text. Linear patterns take a hundredth of it, quadratic ones seconds."""

MOST_TEXTS = 240
LETTERS = "a1_ \t\n\"'\\/|-*`#>[](){}<$:.,;=~&!@%é\x00\x10\ud800"
METHODS = {"match", "fullmatch", "search", "sub", "subn", "split", "findall", "finditer"}


class TooSlow(BaseException):
    """The limit was reached; no `except Exception` of what is tested hides it."""


@contextmanager
def processor_time(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` once so much processor time was used; regular expressions look for signals as they go."""

    def stop(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def is_quick(work: Callable[[], object], seconds: float) -> bool:
    """Whether it ends within so much processor time."""
    try:
        with processor_time(seconds):
            work()
    except TooSlow:
        return False
    return True


# Patterns --------------------------------------------------------------------------------------------------------------


def patterns() -> dict[str, tuple[re.Pattern, set[str]]]:
    """Every pattern of the package by its place, with the methods that are used: of modules, and within functions."""
    known: dict[str, tuple[re.Pattern, set[str]]] = {}
    for info in pkgutil.walk_packages(kern_nb.__path__, "kern_nb."):
        module = importlib.import_module(info.name)
        source = inspect.getsource(module)
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                used = set(re.findall(rf"\b{name}\.(\w+)\(", source)) & METHODS
                known[f"{info.name}.{name}"] = (value, used or METHODS)
        for node in ast.walk(ast.parse(source)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            is_of_re = isinstance(node.func.value, ast.Name) and node.func.value.id == "re"
            if is_of_re and node.args and isinstance(node.args[0], ast.Constant):
                method = node.func.attr
                flags = re.DOTALL | re.MULTILINE if len(node.args) > 1 and method == "compile" else 0
                where = f"{info.name}:{node.lineno}"
                if method in METHODS or not any(v.pattern == node.args[0].value for v, _ in known.values()):
                    known[where] = (re.compile(node.args[0].value, flags), {method} & METHODS or METHODS)
    return known


def examples(pattern: re.Pattern) -> list[str]:
    """Texts that the pattern matches, roughly: made from its parts, each repeated part twice, each branch in turn."""
    parsed = re._parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG)
    return list(dict.fromkeys(_text_of(parsed, choice) for choice in range(24)))


def _text_of(parts: object, choice: int) -> str:
    return "".join(_text_of_part(str(kind), value, choice) for kind, value in parts)


def _text_of_part(kind: str, value: object, choice: int) -> str:
    if kind == "LITERAL":
        return chr(value)
    if kind == "IN":
        return _one_of(value, choice)
    if kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        least, most, inner = value
        return _text_of(inner, choice) * min(max(least, 2), int(most), 80)
    if kind == "BRANCH":
        return _text_of(value[1][choice % len(value[1])], choice // len(value[1]))
    if kind in ("SUBPATTERN", "ATOMIC_GROUP"):
        return _text_of(value[-1] if kind == "SUBPATTERN" else value, choice)
    return "a" if kind in ("NOT_LITERAL", "ANY") else ""


def _one_of(items: list, choice: int) -> str:
    kind, value = items[choice % len(items)]
    if str(kind) == "NEGATE":
        return "a" if choice % 2 else " "
    if str(kind) == "CATEGORY":
        return {"CATEGORY_DIGIT": "1", "CATEGORY_SPACE": " ", "CATEGORY_WORD": "a"}.get(str(value), "!")
    return chr(value[0] if str(kind) == "RANGE" else value)


def hostile_texts(pattern: re.Pattern) -> list[str]:
    """Parts of what a pattern matches over and over, within it and by themselves, and an end that it does not match."""
    around = {("", letter, "") for letter in LETTERS} | {("\n", letter, "a") for letter in LETTERS}
    for example in examples(pattern):
        short = example[:16]
        for start, end in itertools.combinations(range(len(short) + 1), 2):
            if end - start <= 4:
                around |= {(short[:start], short[start:end], ""), (short[:start], short[start:end], short[end:])}
    chosen = sorted(around, key=lambda parts: (len(parts[1]), parts))[:MOST_TEXTS]
    return [before + unit * (CHARACTERS // len(unit)) + after + "\x00" for before, unit, after in chosen]


def calls(pattern: re.Pattern, methods: set[str], text: str) -> None:
    """Use a pattern as the package does, to the end of the text."""
    value = text.encode("utf-8", "surrogatepass") if isinstance(pattern.pattern, bytes) else text
    if "match" in methods:
        pattern.match(value)
    if "fullmatch" in methods:
        pattern.fullmatch(value)
    if methods - {"match", "fullmatch"}:
        for _ in pattern.finditer(value):
            pass


def slow_texts(pattern: re.Pattern, methods: set[str], most: int = 5) -> list[str]:
    """The first texts, as code writes them, for which a pattern takes longer than the limit."""
    slow: list[str] = []
    for text in hostile_texts(pattern):
        if len(slow) < most and not is_quick(partial(calls, pattern, methods, text), SECONDS_A_PATTERN):
            slow.append(f"{text[:30]!r} ... {text[-20:]!r}")
    return slow


PATTERNS = patterns()


def test_the_patterns_of_the_package_are_found():
    """Those of modules and those within functions; else the next test would test nothing."""
    assert len(PATTERNS) >= 30
    assert any(":" in name for name in PATTERNS)


@pytest.mark.parametrize("quadratic", [r"a[ \t]*b?[ \t]*\n", r"/\*.*?\*/", r"\s+$", r"(a|b)*?c", r"\w*\d\w*!"])
def test_a_quadratic_pattern_would_be_found(quadratic):
    """The method finds what it is to find: blanks that two parts of a pattern may match, a comment that never ends."""
    assert slow_texts(re.compile(quadratic, re.DOTALL), METHODS, most=1)


@pytest.mark.parametrize("name", PATTERNS)
def test_every_pattern_is_linear(name):
    """Whatever it is given, it is done within the limit."""
    assert slow_texts(*PATTERNS[name]) == []


# Whole ways that a text goes ---------------------------------------------------------------------------------------------

LONG = 60_000
SECONDS_A_TEXT = 3.0

UNITS = [
    *LETTERS, "[ ", "{ ", "' [1] ", '{"a":', "$a ", "a b ", "/1", "1.", "/*", "--", "$$", "a\n ", "\u202e", "&#1;", "\\u0010",
]  # fmt: skip


def parse_words(text: str) -> None:
    """The words of a magic; a line that does not parse is refused."""
    with contextlib.suppress(BadUsage):
        parser.split(f"show {text[: LONG // 4]}", {"a": "b"})


WAYS = {
    "escape": html.escape,
    "short": lambda text: html.abbreviate(text, 80),
    "block": lambda text: html.render_text(text, LONG),
    "visible": formatting.escape_controls,
    "cut": lambda text: formatting.truncate(text, 80),
    "apart": lambda text: formatting.truncate_distinct([text, f"{text}x", f"x{text}"], 60),
    "compact": lambda text: formatting.format_arguments({"a": text}, 80),
    "two versions": lambda text: worddiff.diff_markup(text, f"{text}x"),
    "two versions from the start": lambda text: worddiff.inline_diff(f"x{text}", text),
    "stored text": lambda text: codec.decode_text(codec.encode_text(text)),
    "stored JSON": lambda text: codec.loads(codec.dumps({"a": text})),
    "words of a magic": parse_words,
    "SQL": user_sql.numbered,
    "JSON of an answer": summaries._parsed,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_a_text_is_linear(way):
    """Escaping, cutting, comparing, storing, parsing."""
    slow = [unit for unit in UNITS if not is_quick(partial(WAYS[way], unit * (LONG // len(unit))), SECONDS_A_TEXT)]
    assert slow == []


MARKDOWN = {
    "blanks in the rule of a table": "a|b\n|-" + " " * html.MAX_LENGTH + "x",
    "tabs in the rule of a table": "a|b\n-|-" + "\t" * html.MAX_LENGTH + "x",
    "blanks in a heading": "# a" + " " * html.MAX_LENGTH + "x",
    "emphasis within emphasis": "*a " * (html.MAX_LENGTH // 6) + " a*" * (html.MAX_LENGTH // 6),
    "strong within strong": "**a " * (html.MAX_LENGTH // 8) + " b**" * (html.MAX_LENGTH // 8),
    "brackets within brackets": "[" * (html.MAX_LENGTH // 2) + "]" * (html.MAX_LENGTH // 2),
    "links within links": "[" * (html.MAX_LENGTH // 4) + "](a)" * (html.MAX_LENGTH // 8),
    "a table of many columns and short rows": "|a" * 300 + "\n" + "|-" * 300 + "\n" + "|\n" * 9_000,
    "many tables that end early": ("|a" * 5 + "\n" + "|-" * 5 + "\n") * 500 + "|\n" * 5_000,
    "fences of many lengths": "".join("`" * (3 + i % 300) + "\n" for i in range(130)),
    "code of many lengths": "".join("`" * i + " " for i in range(1, 200)),
    "lists within lists": "".join("  " * i + "- a\n" for i in range(140)),
    "quotes within quotes": "".join("> " * i + "a\n" for i in range(140)),
    "quotes and lists within each other": "> - " * (html.MAX_LENGTH // 4),
    "a list of many items": "- a\n" * (html.MAX_LENGTH // 4),
    "entities": "&#1;" * (html.MAX_LENGTH // 4),
}


@pytest.mark.parametrize("name", MARKDOWN)
def test_markdown_is_linear_in_time_and_in_size(name):
    """From what a model says to markup: neither hard to read nor a page that is many times as long."""
    text, written = MARKDOWN[name], []
    markdown._parse.cache_clear()
    assert is_quick(lambda: written.append(markdown.render_markdown(text)), SECONDS_A_TEXT)
    assert len(written[0]) < 60 * len(text)
