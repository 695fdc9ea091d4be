"""The attached stores of this process by name, and which of them is in use.

Agents and magics without a store of their own take the one in use: the one attached last, until `use` names another.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kern_nb.errors import BadUsage, NoStore, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from kern_nb.db import SessionStore
    from kern_nb.text.tables import Table

_ATTACH = "%kern attach sessions.duckdb"
_MEMORY = ":memory:"


@dataclass(frozen=True)
class AttachedStore:
    """A row of `stores`."""

    name: str
    url: str
    engine: str
    session_table: str
    read_only: bool
    in_use: bool


class StoreTable(tuple[AttachedStore, ...]):
    """The attached stores as a table; passwords are masked."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table().html()

    @property
    def df(self) -> pd.DataFrame:
        """One row per store."""
        import pandas as pd

        return pd.DataFrame([vars(store) for store in self], columns=list(AttachedStore.__dataclass_fields__))

    def _table(self) -> Table:
        from kern_nb.text.tables import Column, Table

        if not self:
            return Table("No store is attached", [], [], f"Attach one: {_ATTACH}")
        columns = [*map(Column, ("in use", "name", "engine", "access", "table")), Column("url", width=200)]
        rows = []
        for store in self:
            access = "read-only" if store.read_only else "read, write"
            in_use = "→" if store.in_use else " "
            rows.append([in_use, store.name, store.engine, access, store.session_table, store.url])
        return Table("Attached stores", columns, rows)


_stores: dict[str, SessionStore] = {}
_in_use: str | None = None


def attach(
    target: str | Path | SessionStore,
    *,
    name: str | None = None,
    read_only: bool = False,
    session_table: str = "agno_sessions",
) -> SessionStore:
    """Open a store, name it and use it. Nothing is written: a new path becomes a file at the first write.

    Attaching the same target under the same name again is harmless: the file is reopened.

    Args:
        target: What `kern_nb.db.open_store` takes: a path, a URL, ``:memory:`` or a store.
        name: Its name; by default the file's stem or the database's name.
        read_only: Whether to refuse writes.
        session_table: The name of the session table.

    Raises:
        BadUsage: The name belongs to another store.
        KernError: The target is not a store, or cannot be opened; see `open_store`.

    Example:
        >>> import kern_nb
        >>> store = kern_nb.attach(":memory:", name="scratch")
        >>> store is kern_nb.current_store()
        True
        >>> kern_nb.detach("scratch")
    """
    from kern_nb.db import open_store

    global _in_use  # noqa: PLW0603 - one store of the process is in use
    store = open_store(_absolute(target), session_table=session_table, read_only=read_only)
    name = _default_name(store) if name is None else name
    existing = _stores.get(name)
    if existing is not None and _identity(existing) != _identity(store):
        raise BadUsage(
            f"The name {name!r} is already used by {existing!r}.",
            f"Choose another with --as NAME, or first close that one: %kern detach {name}",
        )
    if existing is not None and existing.url.endswith(_MEMORY):
        store = existing  # a new one would be empty
    elif existing is not None and existing is not store:
        existing.close()  # its file may have been replaced since
    _stores.pop(name, None)
    _stores[name] = store
    _in_use = name
    return store


def _absolute(target: str | Path | SessionStore) -> str | Path | SessionStore:
    """Make a path absolute, so that it stays the same when the notebook changes its folder."""
    if isinstance(target, (str, Path)) and "://" not in str(target) and str(target) != _MEMORY:
        return Path(target).expanduser().absolute()
    return target


def _default_name(store: SessionStore) -> str:
    """Return the stem of the file, or the name of the database."""
    location = store.url.partition("://")[2].partition("?")[0]
    return "memory" if location.endswith(_MEMORY) else Path(location).stem or "store"


def _identity(store: SessionStore) -> tuple[str, str, bool]:
    return store.database, store.tables.name, store.read_only


def stores() -> StoreTable:
    """Return the attached stores, as a table with ``.df``.

    Example:
        >>> import kern_nb
        >>> store = kern_nb.attach(":memory:", name="scratch")
        >>> [(store.name, store.engine, store.in_use) for store in kern_nb.stores()]
        [('scratch', 'duckdb', True)]
        >>> kern_nb.detach("scratch")
    """
    return StoreTable(
        AttachedStore(
            name=name,
            url=store.url,
            engine=store.url.partition(":")[0].partition("+")[0],
            session_table=store.tables.name,
            read_only=store.read_only,
            in_use=name == _in_use,
        )
        for name, store in _stores.items()
    )


def names() -> list[str]:
    """Return the names of the attached stores."""
    return list(_stores)


def use(name: str) -> SessionStore:
    """Make an attached store the one in use, and return it.

    Args:
        name: The name of the store.

    Raises:
        NoStore: No store has that name.

    Example:
        >>> import kern_nb
        >>> first, second = (kern_nb.attach(":memory:", name=name) for name in ("first", "second"))
        >>> kern_nb.use("first") is first is kern_nb.current_store()
        True
        >>> kern_nb.detach("first")
        >>> kern_nb.detach("second")
    """
    global _in_use  # noqa: PLW0603
    store = _find(name)
    _in_use = name
    return store


def detach(name: str) -> None:
    """Close a store and remove its name. The content of a store in memory is lost. No other store becomes in use.

    Args:
        name: The name of the store.

    Raises:
        NoStore: No store has that name.

    Example:
        >>> import kern_nb
        >>> store = kern_nb.attach(":memory:", name="scratch")
        >>> kern_nb.detach("scratch")
        >>> len(kern_nb.stores())
        0
    """
    global _in_use  # noqa: PLW0603
    _find(name).close()
    del _stores[name]
    if _in_use == name:
        _in_use = None


def current_store() -> SessionStore:
    """Return the store in use.

    Raises:
        NoStore: No store is in use.

    Example:
        >>> import kern_nb
        >>> store = kern_nb.attach(":memory:", name="scratch")
        >>> kern_nb.current_store() is store
        True
        >>> kern_nb.detach("scratch")
    """
    return _find(None)


def name_of(store: SessionStore) -> str:
    """Return the name under which a store is attached, or the default name of one that is not."""
    return next((name for name, attached in _stores.items() if attached is store), _default_name(store))


def find(store: str | SessionStore | None) -> SessionStore:
    """Return the store of a name, the store in use (None), or the store itself.

    Raises:
        NoStore: No store has that name, or none is in use.
    """
    return _find(store) if store is None or isinstance(store, str) else store


def _find(name: str | None) -> SessionStore:
    name = _in_use if name is None else name
    if name in _stores:
        return _stores[name]
    attached = ", ".join(_stores)
    if name is not None:
        hint = f"Attached stores: {attached}." if attached else f"Attach one: {_ATTACH}"
        raise NoStore(f"No store is attached as {name!r}.", did_you_mean(name, _stores, hint))
    if attached:
        hint = f"Choose one: %kern use {next(iter(_stores))}"
        raise NoStore(f"No store is in use. Attached stores: {attached}.", hint)
    raise NoStore("No store is attached.", f"Attach one, for example: {_ATTACH}")
