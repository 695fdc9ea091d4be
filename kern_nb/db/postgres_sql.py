"""Limits of users' SQL in PostgreSQL, by the names that a query contains.

A full parser is not necessary: with ``search_path = pg_catalog`` a query can access only objects of that schema, and
those that it qualifies with another schema. The names in the SQL are looked up in the server's catalog:

* a name before ``(`` that is a function of pg_catalog must be listed in `sql_functions`;
* a name before ``.`` must not be a schema other than pg_catalog, which leaves aliases;
* no name may be a table or view of pg_catalog.

Strings and comments are skipped, with the lexical rules of ``standard_conforming_strings = on``. Context-dependent
syntax (``U&``, continued ``E''``) is refused.
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
_MAX_NAME_BYTES = 63  # the server truncates longer names

_LOOKUP = """
    SELECT 'function', proname FROM pg_catalog.pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY(%(calls)s::text[])
    UNION ALL SELECT 'schema', nspname FROM pg_catalog.pg_namespace WHERE nspname = ANY(%(qualifiers)s::text[])
    UNION ALL SELECT 'relation', relname FROM pg_catalog.pg_class
        WHERE relnamespace = 'pg_catalog'::regnamespace AND relname = ANY(%(names)s::text[])
"""


@dataclass
class QueryNames:
    """The names in a query: unlisted functions before a parenthesis, qualifiers before a dot, and all names."""

    calls: set[str] = field(default_factory=set)
    qualifiers: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)


def extract_names(text: str) -> QueryNames:
    """Extract the names in a query.

    Raises:
        QueryRefused: parentheses are unbalanced, or the query uses unsupported syntax.
        QueryFailed: a parenthesis is not closed.
    """
    tokens = _tokens(text)
    result = QueryNames()
    depth = 0
    for index, (kind, word) in enumerate(tokens):
        depth += (word == "(") - (word == ")")
        if depth < 0 or word == ";":
            raise user_sql.not_select_error(text)
        if kind not in ("word", "quoted"):
            continue
        name = _name(kind, word)
        result.names.add(name)
        following = tokens[index + 1][1] if index + 1 < len(tokens) else ""
        if following == "." and name != "pg_catalog":
            result.qualifiers.add(name)
        if following != "(":
            continue
        if index > 1 and tokens[index - 1][1] == "." and _name(*tokens[index - 2]) != "pg_catalog":
            raise user_sql.function_error(f"{tokens[index - 2][1]}.{word}")
        if kind == "word" and not word.isascii():  # some servers fold such letters to ASCII
            raise user_sql.function_error(word)
        if name not in POSTGRES:
            result.calls.add(name)
    if depth:
        raise QueryFailed("A parenthesis is not closed.", "The SQL dialect is PostgreSQL's.")
    return result


def require_allowed_names(raw: Any, names: QueryNames) -> None:
    """Check the names of a query against the server's catalog.

    Raises:
        QueryRefused: a name is an unlisted function, or a schema.
        QueryFailed: a name is a system table.
    """
    parameters = {name: list(values) for name, values in vars(names).items()}
    for kind, name in raw.execute(_LOOKUP, parameters):
        if kind == "function":
            raise user_sql.function_error(name)
        if kind == "relation":
            raise user_sql.relation_error(name)
        raise QueryRefused(
            f"SQL cannot read the schema {name}, only {', '.join(VIEWS)}.",
            "If this is an alias in your query, rename it.",
        )
    # The catalog does not list pg_temp.
    if hidden := sorted(name for name in names.qualifiers if name.startswith("pg_")):
        raise user_sql.relation_error(hidden[0])


def add_views(body: str, views: Mapping[str, str]) -> str:
    """Put the views in a WITH and the query in a subquery, where only a SELECT is valid."""
    ctes = ", ".join(f"{name} AS NOT MATERIALIZED (\n{view}\n)" for name, view in views.items())
    return f"{'WITH ' if views else ''}{ctes} SELECT * FROM (\n{body}\n) AS kern_query"  # noqa: S608


def _tokens(text: str) -> list[tuple[str, str]]:
    """Tokenize SQL; each token has its kind. Blanks and comments are skipped."""
    tokens: list[tuple[str, str]] = []
    position = 0
    while match := _TOKEN.match(text, position):
        kind, position = match.lastgroup or "sign", match.end()
        if kind == "comment":
            position = _end_of_comment(text, position)
        elif kind == "unicode" or (kind == "string" and tokens and tokens[-1][0] == "escapes"):
            raise QueryRefused(
                f"Unsupported syntax {match[0][:20]!r}.",
                "Write the characters literally, in one string or quoted name.",
            )
        elif kind == "open":
            raise QueryFailed(f"The quote {match[0]} is not closed.", "The SQL dialect is PostgreSQL's.")
        elif kind != "blank":
            tokens.append((kind, match[0]))
    return tokens


def _end_of_comment(text: str, position: int) -> int:
    """Return the end of a comment from the end of its first ``/*``; comments nest."""
    depth = 1
    for match in re.compile(r"/\*|\*/").finditer(text, position):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    return len(text)


def _name(kind: str, token: str) -> str:
    name = token[1:-1].replace('""', '"') if kind == "quoted" else token
    content = name.encode(errors="replace")
    if kind != "quoted":
        content = content.lower()  # ASCII letters only, like the server
    return content[:_MAX_NAME_BYTES].decode(errors="ignore")
