"""Database URLs without their secrets: the one function by which every URL is shown, and the parser behind it.

A password may stand between user and host, in the query, or anywhere in a URL that does not parse. What is shown is
therefore built from the parts that are known to be harmless; everything else is ``***``.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from kern_nb.errors import NotAStore

if TYPE_CHECKING:
    import sqlalchemy as sa

MASK = "***"

# Connection parameters that hold no secret. `passfile` and `sslkey` are paths.
_SHOWN_PARAMETERS = frozenset(
    (
        "application_name", "channel_binding", "client_encoding", "connect_timeout", "gssencmode", "host", "hostaddr",
        "keepalives", "load_balance_hosts", "passfile", "port", "require_auth", "service", "sslcert", "sslcrl",
        "sslkey", "sslmode", "sslrootcert", "target_session_attrs", "user",
    )
)  # fmt: skip
_HIDDEN_PARAMETERS = frozenset(("options", "password", "sslpassword"))
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{0,40}")
# `host=db password=x` of libpq, and `motherduck_token=x` of a name without a scheme.
_ASSIGNMENT = re.compile(r"(?<![\w.\-])([\w.\-]+)\s*=")
_SECRET_WORDS = ("pass", "pwd", "token", "secret", "key", "credential", "auth")
_CONNECTION_STRING = re.compile(
    r"(?i)(?:^|\s)(?:host|hostaddr|port|dbname|user|password|passfile|service|sslmode|sslpassword|options)\s*=\s*\S"
)
# `postgres:user:x@host`, a URL that lacks its slashes; but not a drive of Windows.
_NAME_BEFORE_COLON = re.compile(r"(?<![A-Za-z0-9+.\-])([A-Za-z0-9+.\-]+):")
_TWO_CHARACTERS = re.compile(r"[A-Za-z].")


def mask(target: str) -> str:
    """A URL, connection string or path as it may be shown: without anything that may be a secret."""
    scheme, separator, _ = target.partition("://")
    if not separator:
        return _mask_assignments(_mask_user_info(target))
    shown_scheme = scheme if _SCHEME.fullmatch(scheme) else MASK
    if scheme.partition("+")[0] in ("sqlite", "duckdb") and target.partition("://")[2][:1] in ("/", ":", ""):
        return _mask_assignments(target)
    if scheme.partition("+")[0] in ("postgresql", "postgres"):
        try:
            return format_url(parse_url(target))
        except NotAStore:
            pass
    return f"{shown_scheme}://{MASK}"


def _mask_assignments(text: str) -> str:
    """A text up to the value of the first name that says it is a secret."""
    for match in _ASSIGNMENT.finditer(text):
        if any(word in match[1].lower() for word in _SECRET_WORDS):
            return text[: match.end()] + MASK
    return text


def _mask_user_info(text: str) -> str:
    """A text without what stands between the first name with a colon and the last @."""
    before, at, rest = text.rpartition("@")
    for match in _NAME_BEFORE_COLON.finditer(before):
        if _TWO_CHARACTERS.search(match[1]):
            return before[: match.end()] + MASK + at + rest
    return text


def is_connection_string(target: str) -> bool:
    """Whether a text is libpq's ``host=… dbname=…``, which is no path."""
    return _CONNECTION_STRING.search(target) is not None


def parse_url(db_url: str | sa.URL) -> sa.URL:
    """A database URL in parts.

    Raises:
        NotAStore: it does not parse, or could be read in two ways; its text is not shown.
    """
    import sqlalchemy as sa

    url: sa.URL | None = None
    # The parser's own error may quote the password: none is chained to ours.
    with contextlib.suppress(sa.exc.ArgumentError, ValueError, TypeError, AttributeError):
        url = sa.make_url(db_url)
    if url is not None and (isinstance(db_url, sa.URL) or not _is_ambiguous(db_url, url)):
        return url
    raise NotAStore(
        "The database URL does not parse.",
        "Write postgresql+psycopg://user@host/database. In a password, @ is written %40, / is %2F, : is %3A, % is %25.",
    )


def _is_ambiguous(text: str, url: sa.URL) -> bool:
    """Whether a part of the password may have been taken for the host, the database or the query."""
    after_user = text.partition("://")[2].partition(":")[2]
    user_info = after_user.rpartition("@")[0]
    parts = (url.host or "") + (url.username or "").replace("@", "")
    return "@" in user_info or "=" in user_info.partition("?")[2] or any(sign in parts for sign in "@?#/ \t\r\n")


def format_url(url: sa.URL) -> str:
    """A URL of known parts as text, its secrets masked."""
    text = f"{url.drivername}://"
    if url.username is not None:
        text += quote(url.username, safe=" +") + (f":{MASK}" if url.password is not None else "") + "@"
    if url.host is not None:
        text += f"[{url.host}]" if ":" in url.host else url.host
    if url.port is not None:
        text += f":{url.port}"
    if url.database is not None:
        is_plain = not any(sign in url.database for sign in "=@:?#")
        text += "/" + (quote(url.database, safe=" +/") if is_plain else MASK)
    query = [_parameter(name, value) for name in sorted(url.query) for value in _values(url, name)]
    return text + (f"?{'&'.join(query)}" if query else "")


def _values(url: sa.URL, name: str) -> tuple[str, ...]:
    value = url.query[name]
    return (value,) if isinstance(value, str) else tuple(value)


def _parameter(name: str, value: str) -> str:
    if name in _SHOWN_PARAMETERS:
        return f"{name}={quote_plus(value)}"
    # What follows an & in a password is taken for a name.
    return f"{name}={MASK}" if name in _HIDDEN_PARAMETERS else MASK


def find_secrets(url: sa.URL) -> set[str]:
    """The texts of a URL that no message may hold: the password, and the values that `format_url` masks."""
    hidden = {value for name in url.query if name not in _SHOWN_PARAMETERS for value in _values(url, name)}
    if hidden:  # a secret with an & in it looks like a name that is unknown
        hidden |= url.query.keys() - _SHOWN_PARAMETERS - _HIDDEN_PARAMETERS
    if url.password is not None:
        hidden.add(str(url.password))
    hidden |= {word for value in tuple(hidden) for word in re.split(r"[\s=]+", value)}
    return {text for text in hidden if len(text) > 2}  # noqa: PLR2004 - masking every "a" would leave no message


def url_digest(url: sa.URL) -> str:
    """What differs between URLs of different databases, and not between those of different passwords."""
    pairs = [(name, value) for name in sorted(url.query) if "password" not in name for value in _values(url, name)]
    return hashlib.sha256(repr((url.username, url.host, url.port, url.database, pairs)).encode()).hexdigest()[:16]


def remove_secrets(message: str, secrets: Iterable[str]) -> str:
    """A driver's message without the secrets that it may quote."""
    for secret in sorted(secrets, key=len, reverse=True):
        for spelling in {secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]}:
            message = message.replace(spelling, MASK)
    return message
