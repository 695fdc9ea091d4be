"""Parse database URLs, and format them without their secrets.

A password may be between user and host, in the query, or anywhere in a URL that does not parse. The displayed text is
therefore built from the parts that are known to be harmless; everything else is ``***``.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from kern_nb.errors import BadUsage, NotAStore

if TYPE_CHECKING:
    import sqlalchemy as sa

MASK = "***"

# Connection parameters without secrets. `passfile` and `sslkey` are paths.
_SAFE_PARAMETERS = frozenset(
    (
        "application_name", "channel_binding", "client_encoding", "connect_timeout", "gssencmode", "host", "hostaddr",
        "keepalives", "load_balance_hosts", "passfile", "port", "require_auth", "service", "sslcert", "sslcrl",
        "sslkey", "sslmode", "sslrootcert", "target_session_attrs", "user",
    )
)  # fmt: skip
_SECRET_PARAMETERS = frozenset(("options", "password", "sslpassword"))
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{0,40}")
# `host=db password=x` of libpq, and `motherduck_token=x` in a name without a scheme.
_ASSIGNMENT = re.compile(r"(?<![\w.\-])([\w.\-]+)\s*=")
_SECRET_WORDS = ("pass", "pwd", "token", "secret", "key", "credential", "auth")
_CONNECTION_STRING = re.compile(
    r"(?i)(?:^|\s)(?:host|hostaddr|port|dbname|user|password|passfile|service|sslmode|sslpassword|options)\s*=\s*\S"
)
# `postgres:user:x@host`, a URL without its slashes; but not a Windows drive.
_NAME_BEFORE_COLON = re.compile(r"(?<![A-Za-z0-9+.\-])([A-Za-z0-9+.\-]+):")
_TWO_CHARACTERS = re.compile(r"[A-Za-z].")


def mask(target: str) -> str:
    """A URL, connection string or path for display, without anything that may be a secret."""
    scheme, separator, rest = target.partition("://")
    if not separator:
        return _mask_assignments(_mask_user_info(target))
    dialect = scheme.partition("+")[0]
    if dialect in ("sqlite", "duckdb") and rest[:1] in ("/", ":", ""):
        return _mask_assignments(target)
    if dialect in ("postgresql", "postgres"):
        with contextlib.suppress(NotAStore):
            return format_url(parse_url(target))
    return f"{scheme if _SCHEME.fullmatch(scheme) else MASK}://{MASK}"


def _mask_assignments(text: str) -> str:
    """A text up to the value of the first name of a secret."""
    for match in _ASSIGNMENT.finditer(text):
        if any(word in match[1].lower() for word in _SECRET_WORDS):
            return text[: match.end()] + MASK
    return text


def _mask_user_info(text: str) -> str:
    """A text without the part between the first name with a colon and the last @."""
    before, at, host = text.rpartition("@")
    for match in _NAME_BEFORE_COLON.finditer(before):
        if _TWO_CHARACTERS.search(match[1]):
            return before[: match.end()] + MASK + at + host
    return text


def is_connection_string(target: str) -> bool:
    """Whether a text is libpq's ``host=… dbname=…`` instead of a path."""
    return _CONNECTION_STRING.search(target) is not None


def postgres_url(target: str) -> str | None:
    """A URL of PostgreSQL with the driver that is used, whatever driver it names; None for anything else."""
    scheme, separator, location = target.partition("://")
    is_postgres = separator and scheme.partition("+")[0] in ("postgresql", "postgres")
    return f"postgresql+psycopg://{location}" if is_postgres else None


def parse_url(db_url: str | sa.URL) -> sa.URL:
    """Parse a database URL.

    Raises:
        NotAStore: the URL does not parse, or is ambiguous; the message does not quote it.
    """
    import sqlalchemy as sa

    url: sa.URL | None = None
    # The parser's own error may quote the password, so it is not chained.
    with contextlib.suppress(sa.exc.ArgumentError, ValueError, TypeError, AttributeError):
        url = sa.make_url(db_url)
    if url is not None and (isinstance(db_url, sa.URL) or not _is_ambiguous(db_url, url)):
        return url
    raise NotAStore(
        "The database URL does not parse.",
        "Write postgresql+psycopg://user@host/database. In a password, @ is written %40, / is %2F, : is %3A, % is %25.",
    )


def _is_ambiguous(text: str, url: sa.URL) -> bool:
    """Whether a part of the password may have been parsed as the host, the database or the query."""
    after_user = text.partition("://")[2].partition(":")[2]
    user_info = after_user.rpartition("@")[0]
    parts = (url.host or "") + (url.username or "").replace("@", "")
    return "@" in user_info or "=" in user_info.partition("?")[2] or any(sign in parts for sign in "@?#/ \t\r\n")


def format_url(url: sa.URL) -> str:
    """Format a URL with its secrets masked."""
    text = url.set(query={}).render_as_string(hide_password=True)
    if any(sign in (url.database or "") for sign in "=@:?#"):
        text = url.set(query={}, database="").render_as_string(hide_password=True) + MASK
    query = [_parameter(name, value) for name in sorted(url.query) for value in url.normalized_query[name]]
    return text + (f"?{'&'.join(query)}" if query else "")


def _parameter(name: str, value: str) -> str:
    if name in _SAFE_PARAMETERS:
        return f"{name}={quote_plus(value)}"
    # An unknown name may be the part of a password after an &.
    return f"{name}={MASK}" if name in _SECRET_PARAMETERS else MASK


def find_secrets(url: sa.URL) -> set[str]:
    """The parts of a URL that no message may contain: the password, and the values that `format_url` masks."""
    query = url.normalized_query
    secrets = {value for name in query.keys() - _SAFE_PARAMETERS for value in query[name]}
    if secrets:  # the part of a secret after an & looks like an unknown name
        secrets |= query.keys() - _SAFE_PARAMETERS - _SECRET_PARAMETERS
    if url.password is not None:
        secrets.add(str(url.password))
    secrets |= {word for value in tuple(secrets) for word in re.split(r"[\s=]+", value)}
    return {text for text in secrets if len(text) > 2}  # noqa: PLR2004 - masking every "a" would leave no message


def url_digest(url: sa.URL) -> str:
    """A hash that identifies the database of a URL, independent of the password."""
    query = url.normalized_query
    pairs = [(name, value) for name in sorted(query) if "password" not in name for value in query[name]]
    return hashlib.sha256(repr((url.username, url.host, url.port, url.database, pairs)).encode()).hexdigest()[:16]


def remove_secrets(message: str, secrets: Iterable[str]) -> str:
    """Mask the secrets that a driver's message may quote."""
    for secret in sorted(secrets, key=len, reverse=True):
        for encoded in {secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]}:
            message = message.replace(encoded, MASK)
    return message


def engine_url(db_engine: Any, dialect: str) -> sa.URL:
    """Return the URL of an SQLAlchemy engine, also of an asynchronous one.

    Raises:
        BadUsage: it is not an engine of this database.
    """
    url = getattr(db_engine, "url", None)
    if url is None or url.get_backend_name() != dialect:
        name = type(db_engine).__name__ if url is None else url.get_backend_name()
        raise BadUsage(f"db_engine must be an SQLAlchemy engine for {dialect}, got {name}.", "Or pass its db_url.")
    return parse_url(url)
