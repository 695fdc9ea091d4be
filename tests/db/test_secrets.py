"""Secrets in a database URL are never displayed: not in names of stores, tables, errors or tracebacks."""

from __future__ import annotations

import contextlib
import traceback
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kern_nb import store_registry
from kern_nb.db import PostgresDb
from kern_nb.db.urls import mask
from kern_nb.errors import KernError, NotAStore, StoreUnavailable
from kern_nb.records import Run

HEAD, TAIL = "swordfish", "sesame"
"""Every secret starts with HEAD and ends with TAIL: no part of it may be displayed."""

hostile = st.one_of(
    st.text(st.sampled_from("@:/?#[]%&=+ '\"\\;,{}$\n\t"), max_size=8),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
URLS = {
    "password": "postgresql://user:{raw}@127.0.0.1:1/shop",
    "encoded": "postgresql+psycopg://user:{encoded}@127.0.0.1:1/shop",
    "short scheme": "postgres://user:{raw}@127.0.0.1:1/shop",
    "query": "postgresql://user@127.0.0.1:1/shop?password={encoded}&sslpassword={encoded}&application_name=x",
    "raw query": "postgresql://127.0.0.1:1/shop?user=u&password={raw}",
    "options": "postgresql://user@127.0.0.1:1/shop?options=-c%20app.token%3D{encoded}",
    "unknown option": "postgresql://user@127.0.0.1:1/shop?api_key={encoded}",
    "database": "postgresql://127.0.0.1:1/host=x%20password={encoded}",
    "no host": "postgresql://user:{raw}@",
    "port": "postgresql://user:{plain}/shop",
    "host": "postgresql://user:{plain}",
    "unknown scheme": "mysql://user:{raw}@host/shop",
    "unknown scheme, query": "mysql://host/shop?password={raw}",
    "odd scheme": "user:{raw}://host",
    "connection string": "host=127.0.0.1 port=1 dbname=shop password='{raw}'",
    "password first": "password={raw} host=127.0.0.1",
    "no slashes": "postgresql:user:{raw}@host/shop",
    "one slash": "postgresql:/user:{raw}@host/shop",
    "no scheme": "user:{raw}@host/shop",
    "sqlite": "sqlite:///nowhere/x.db?password={encoded}",
    "sqlite, two slashes": "sqlite://user:{raw}@host/x.db",
    "duckdb": "duckdb:///nowhere/x.duckdb?motherduck_token={encoded}",
    "motherduck": "md:shop?motherduck_token={encoded}",
}


def all_texts(error: BaseException) -> str:
    """All texts of an error in a notebook and a terminal, including its causes."""
    parts = [str(error), repr(error), *traceback.format_exception_only(error)]
    if isinstance(error, KernError):
        parts += [error.hint, *error._render_traceback_()]
    chain = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join([*parts, all_texts(chain) if chain else ""])


def displayed_texts(target: str) -> str:
    """All texts that are displayed when a target is attached and opened."""
    texts = [mask(target)]
    for use in (store_registry.attach, PostgresDb):
        try:
            result = use(target)
        except Exception as error:  # noqa: BLE001 - any error is displayed
            texts.append(all_texts(error))
        else:
            texts += [repr(result), result.url]
            with contextlib.suppress(Exception):
                result.close()
    return "\n".join(texts)


@pytest.mark.parametrize("position", URLS)
def test_no_part_of_a_secret_is_displayed(position):
    """At any position, with any characters, whether the URL parses or not."""

    @settings(max_examples=15)
    @given(hostile)
    @example("@")
    @example("@/")
    @example("?@")
    @example("#[")
    @example("://")
    @example("%zz")
    def check(middle: str) -> None:
        secret = f"{HEAD}{middle}{TAIL}"
        plain = secret.replace("@", "")  # in the position of a host, text after an @ is one
        text = displayed_texts(URLS[position].format(raw=secret, encoded=quote(secret, safe=""), plain=plain))
        assert HEAD not in text
        assert TAIL not in text

    check()


def test_other_parts_of_a_url_are_displayed():
    """Users distinguish stores by host, port, database and user."""
    store = PostgresDb("postgresql://ann:swordfish@db.example:5433/shop?sslmode=require&password=x&options=-c%20a%3Db")

    assert store.url == "postgresql://ann:***@db.example:5433/shop?options=***&password=***&sslmode=require"
    assert mask("postgresql://[::1]/shop") == "postgresql://[::1]/shop"
    assert mask("data/sessions.duckdb") == "data/sessions.duckdb"
    assert mask("mysql://u:p@h/db") == "mysql://***"


def test_table_of_stores_displays_no_secret(monkeypatch):
    """As text, HTML and DataFrame, and in the default name of a store."""
    monkeypatch.setattr(store_registry, "_stores", {})
    monkeypatch.setattr(store_registry, "_in_use", None)
    monkeypatch.setattr(PostgresDb, "exists", lambda self: True)
    url = "postgresql://user:swordfish@db.example/shop?password=swordfish&options=-cx.y%3Dswordfish"
    store = store_registry.attach(url)
    stores = store_registry.stores()

    assert (
        "swordfish" not in f"{stores!r} {stores._repr_html_()} {stores.df.to_csv()} {stores} {store_registry.names()}"
    )
    assert store_registry.name_of(store) == "shop"


def test_secret_in_a_server_message_is_masked(postgres_database_url):
    """The server quotes an invalid parameter."""
    url = sa.make_url(postgres_database_url).update_query_dict({"options": "-c datestyle=swordfish"})
    with PostgresDb(url) as store, pytest.raises(StoreUnavailable) as caught:
        store.append_run("chat", Run(input="hi"))

    assert "DateStyle" in str(caught.value)
    assert "swordfish" not in all_texts(caught.value)


@pytest.mark.parametrize(
    "url", ["postgresql://u:a@b@host/db", "postgresql://u:a/b@c@host/db", "postgresql://host:port/db"]
)
def test_ambiguous_url_is_refused(url):
    """Before a part of the password is looked up as a host; the hint explains the encoding."""
    with pytest.raises(NotAStore, match="does not parse") as caught:
        PostgresDb(url)

    assert "%40" in caught.value.hint


def test_urls_with_different_options_are_different_databases(monkeypatch):
    """Even if their masked URLs are equal; a changed password is the same database."""
    base = "postgresql://u@host/db"
    stores = [PostgresDb(f"{base}?options=-csearch_path%3D{name}") for name in ("a", "b")]

    assert stores[0].url == stores[1].url
    assert stores[0].database != stores[1].database
    assert PostgresDb("postgresql://u:x@host/db").database == PostgresDb("postgresql://u:y@host/db").database
    assert "search_path" not in stores[0].database
