"""No function takes time quadratic in the length of a text.

Processor time is limited: linear code is far below the limit, quadratic code far above.
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
from kern_nb.db import codec, sql_parameters
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
    """The limit is exceeded; no `except Exception` of the tested code catches it."""


@contextmanager
def processor_time(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` after an amount of processor time; regular expressions check for signals."""

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
    """Return whether a call finishes within an amount of processor time."""
    try:
        with processor_time(seconds):
            work()
    except TooSlow:
        return False
    return True


# Patterns --------------------------------------------------------------------------------------------------------------


def patterns() -> dict[str, tuple[re.Pattern, set[str]]]:
    """Return every pattern of the package by its location, with the methods used: module-level and inside functions."""
    patterns_by_name: dict[str, tuple[re.Pattern, set[str]]] = {}
    for info in pkgutil.walk_packages(kern_nb.__path__, "kern_nb."):
        try:
            module = importlib.import_module(info.name)
        except ImportError:
            if info.name.startswith("kern_nb.bridges."):  # its extra is not installed
                continue
            raise
        source = inspect.getsource(module)
        for name, value in vars(module).items():
            if isinstance(value, re.Pattern):
                used = set(re.findall(rf"\b{name}\.(\w+)\(", source)) & METHODS
                patterns_by_name[f"{info.name}.{name}"] = (value, used or METHODS)
        for node in ast.walk(ast.parse(source)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            is_of_re = isinstance(node.func.value, ast.Name) and node.func.value.id == "re"
            if is_of_re and node.args and isinstance(node.args[0], ast.Constant):
                method = node.func.attr
                flags = re.DOTALL | re.MULTILINE if len(node.args) > 1 and method == "compile" else 0
                where = f"{info.name}:{node.lineno}"
                if method in METHODS or not any(v.pattern == node.args[0].value for v, _ in patterns_by_name.values()):
                    patterns_by_name[where] = (re.compile(node.args[0].value, flags), {method} & METHODS or METHODS)
    return patterns_by_name


def examples(pattern: re.Pattern) -> list[str]:
    """Return texts that the pattern matches, approximately: each repetition twice, each branch in turn."""
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
    """Return repeated parts of what a pattern matches, with an end that it does not match."""
    around = {("", letter, "") for letter in LETTERS} | {("\n", letter, "a") for letter in LETTERS}
    for example in examples(pattern):
        short = example[:16]
        for start, end in itertools.combinations(range(len(short) + 1), 2):
            if end - start <= 4:
                around |= {(short[:start], short[start:end], ""), (short[:start], short[start:end], short[end:])}
    selected = sorted(around, key=lambda parts: (len(parts[1]), parts))[:MOST_TEXTS]
    return [before + unit * (CHARACTERS // len(unit)) + after + "\x00" for before, unit, after in selected]


def calls(pattern: re.Pattern, methods: set[str], text: str) -> None:
    """Use a pattern like the package does."""
    value = text.encode("utf-8", "surrogatepass") if isinstance(pattern.pattern, bytes) else text
    if "match" in methods:
        pattern.match(value)
    if "fullmatch" in methods:
        pattern.fullmatch(value)
    if methods - {"match", "fullmatch"}:
        for _ in pattern.finditer(value):
            pass


def slow_texts(pattern: re.Pattern, methods: set[str], most: int = 5) -> list[str]:
    """Return the first texts for which a pattern exceeds the limit."""
    slow: list[str] = []
    for text in hostile_texts(pattern):
        if len(slow) < most and not is_quick(partial(calls, pattern, methods, text), SECONDS_A_PATTERN):
            slow.append(f"{text[:30]!r} ... {text[-20:]!r}")
    return slow


PATTERNS = patterns()


def test_patterns_of_package_are_found():
    """Module-level ones and those inside functions; otherwise the next test would test nothing."""
    assert len(PATTERNS) >= 30
    assert any(":" in name for name in PATTERNS)


@pytest.mark.parametrize("quadratic", [r"a[ \t]*b?[ \t]*\n", r"/\*.*?\*/", r"\s+$", r"(a|b)*?c", r"\w*\d\w*!"])
def test_quadratic_pattern_is_detected(quadratic):
    """Overlapping repetitions of blanks, and a comment without an end."""
    assert slow_texts(re.compile(quadratic, re.DOTALL), METHODS, most=1)


@pytest.mark.parametrize("name", PATTERNS)
def test_every_pattern_is_linear(name):
    """Every text finishes within the limit."""
    assert slow_texts(*PATTERNS[name]) == []


# Whole ways that a text goes ---------------------------------------------------------------------------------------------

LONG = 60_000
SECONDS_A_TEXT = 3.0

UNITS = [
    *LETTERS, "[ ", "{ ", "' [1] ", '{"a":', "$a ", "a b ", "/1", "1.", "/*", "--", "$$", "a\n ", "\u202e", "&#1;", "\\u0010",
]  # fmt: skip


def parse_words(text: str) -> None:
    """Split the words of a magic; a line that does not parse is refused."""
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
    "SQL": sql_parameters.number_parameters,
    "JSON of an answer": summaries._parse_answer,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_text_function_is_linear(way):
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
def test_markdown_is_linear_in_time_and_size(name):
    """Markup of a model's text: linear time, and a page of proportional size."""
    text, written = MARKDOWN[name], []
    markdown._parse.cache_clear()
    assert is_quick(lambda: written.append(markdown.render_markdown(text)), SECONDS_A_TEXT)
    assert len(written[0]) < 60 * len(text)
