"""What a query of PostgreSQL's may name: words before a parenthesis, before a dot, and all others.

There is no parser at hand, and none is needed: with ``search_path = pg_catalog`` a query can reach only what stands in
that schema, and whatever it names with another schema. So the words of the SQL are looked up in the server's catalog:

* a word before ``(`` that is a function of pg_catalog must be listed in `sql_functions`;
* a word before ``.`` must not be a schema (pg_catalog aside), which leaves aliases;
* no word may be a table or view of pg_catalog.

Words of strings and comments do not count, so these are told apart as the server does with
``standard_conforming_strings = on``; what it reads in a context-dependent way (``U&``, continued ``E''``) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kern_nb.db import user_sql
from kern_nb.db.sql_functions import POSTGRES
from kern_nb.db.views import VIEWS
from kern_nb.errors import QueryFailed, QueryRefused

_LETTER = r"A-Za-z_\x80-\U0010ffff"
_TOKEN = re.compile(
    rf"""(?P<blank>[ \t\n\r\f\v]+ | --[^\n\r]*)
    | (?P<comment>/\*)
    | (?P<escapes>[eE]'(?:[^'\\]|\\.|'')*')
    | (?P<unicode>[uU]&["'])
    | (?P<string>'(?:[^']|'')*' | \$(?P<tag>(?:[{_LETTER}][{_LETTER}0-9]*)?)\$ .*? \$(?P=tag)\$)
    | (?P<quoted>"(?:[^"]|"")*")
    | (?P<open>['"] | \$(?:[{_LETTER}][{_LETTER}0-9]*)?\$)
    | (?P<word>[{_LETTER}][{_LETTER}0-9$]*)
    | [0-9]+
    | .""",
    re.VERBOSE | re.DOTALL,
)
_LONGEST_NAME = 63  # bytes; what is longer is cut by the server

_LOOKUP = """
    SELECT 'function', proname FROM pg_catalog.pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY(%(calls)s::text[])
    UNION ALL SELECT 'schema', nspname FROM pg_catalog.pg_namespace WHERE nspname = ANY(%(qualifiers)s::text[])
    UNION ALL SELECT 'relation', relname FROM pg_catalog.pg_class
        WHERE relnamespace = 'pg_catalog'::regnamespace AND relname = ANY(%(names)s::text[])
"""


@dataclass
class QueryNames:
    """The names in a query: before a parenthesis and not listed as a function, before a dot, and all."""

    calls: set[str] = field(default_factory=set)
    qualifiers: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


def extract_names(text: str) -> QueryNames:
    """The names in a query.

    Raises:
        QueryRefused: it closes parentheses that it does not open, or is written in a way that is not read here.
        QueryFailed: a parenthesis is not closed.
    """
    tokens = _tokens(text)
    words = QueryNames()
    depth = 0
    for index, (kind, word) in enumerate(tokens):
        depth += (word == "(") - (word == ")")  # a string has its quotes with it
        if depth < 0 or word == ";":
            raise user_sql.not_select_error(text)
        if kind not in ("word", "quoted"):
            continue
        name = _name(kind, word)
        words.names.add(name)
        following = tokens[index + 1][1] if index + 1 < len(tokens) else ""
        if following == "." and name != "pg_catalog":
            words.qualifiers.add(name)
        if following != "(":
            continue
        if index > 1 and tokens[index - 1][1] == "." and _name(*tokens[index - 2]) != "pg_catalog":
            raise user_sql.function_error(f"{tokens[index - 2][1]}.{word}")
        if kind == "word" and not word.isascii():  # some servers fold such letters to ASCII ones
            raise user_sql.function_error(word)
        if name not in POSTGRES:
            words.calls.add(name)
    if depth:
        raise QueryFailed("A parenthesis is not closed.", "The SQL dialect is PostgreSQL's.")
    return words


def require_allowed_names(raw: Any, words: QueryNames) -> None:
    """Check the names against the server's catalog.

    Raises:
        QueryRefused: one is a function that is not listed, or a schema.
        QueryFailed: one is a table of the system's.
    """
    parameters = {
        "calls": list(words.calls),
        "qualifiers": list(words.qualifiers),
        "names": list(words.names | words.calls),
    }
    for kind, name in raw.execute(_LOOKUP, parameters):
        if kind == "function":
            raise user_sql.function_error(name)
        if kind == "relation":
            raise user_sql.relation_error(name)
        raise QueryRefused(
            f"The schema {name} is not read here: SQL reads {', '.join(VIEWS)}.",
            "If it is an alias in your query, give it another name.",
        )
    if hidden := sorted(name for name in words.qualifiers if name.startswith("pg_")):  # pg_temp is in no catalog
        raise user_sql.relation_error(hidden[0])


def add_views(body: str, views: Mapping[str, str]) -> str:
    """A query with the views that it names before it. As a subquery it can be nothing but a query."""
    before = ", ".join(f"{name} AS NOT MATERIALIZED (\n{view}\n)" for name, view in views.items())
    return f"{'WITH ' if views else ''}{before} SELECT * FROM (\n{body}\n) AS kern_query"  # noqa: S608


def _tokens(text: str) -> list[tuple[str, str]]:
    """The words and signs of SQL, each with its kind, without blanks and comments."""
    tokens: list[tuple[str, str]] = []
    position = 0
    while match := _TOKEN.match(text, position):
        kind, position = match.lastgroup or "sign", match.end()
        if kind == "comment":
            position = _end_of_comment(text, position)
        elif kind == "unicode" or (kind == "string" and tokens and tokens[-1][0] == "escapes"):
            raise QueryRefused(
                f"{match[0][:20]!r} is not run here.", "Write the letters themselves, in one string or quoted name."
            )
        elif kind == "open":
            raise QueryFailed(f"The quote {match[0]} is not closed.", "The SQL dialect is PostgreSQL's.")
        elif kind != "blank":
            tokens.append((kind, match[0]))
    return tokens


def _end_of_comment(text: str, position: int) -> int:
    """Where a comment ends, whose first ``/*`` ends at a position: comments nest."""
    depth = 1
    for match in re.compile(r"/\*|\*/").finditer(text, position):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    return len(text)


def _name(kind: str, token: str) -> str:
    """The name that a word or a quoted name stands for."""
    name = (
        token[1:-1].replace('""', '"') if kind == "quoted" else "".join(c.lower() if c.isascii() else c for c in token)
    )
    return name.encode(errors="replace")[:_LONGEST_NAME].decode(errors="ignore")
