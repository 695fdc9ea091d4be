"""The stores that this process has attached, by name, and which of them is in use.

Agents and magics that are given no store take the one in use: the one attached last, until `use` names another.
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
    """A line of `stores`."""

    name: str
    url: str
    engine: str
    session_table: str
    read_only: bool
    in_use: bool


class StoreTable(tuple[AttachedStore, ...]):
    """The attached stores, as a table a person reads; passwords are masked."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table().html()

    @property
    def df(self) -> pd.DataFrame:
        """One row a store."""
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


class Attached:
    """Named stores, one of them in use."""

    def __init__(self) -> None:
        self._stores: dict[str, SessionStore] = {}
        self._in_use: str | None = None

    def attach(
        self,
        target: str | Path | SessionStore,
        *,
        name: str | None = None,
        read_only: bool = False,
        session_table: str = "agno_sessions",
    ) -> SessionStore:
        """See `attach`."""
        from kern_nb.db import open_store

        store = open_store(_absolute(target), session_table=session_table, read_only=read_only)
        name = _name_of(store) if name is None else name
        known = self._stores.get(name)
        if known is not None and _identity(known) != _identity(store):
            raise BadUsage(
                f"The name {name!r} is taken by {known!r}.",
                f"Give this one another with --as NAME, or let go of that one: %kern detach {name}",
            )
        if known is not None and known.url.endswith(_MEMORY):
            store = known  # a new one would be empty
        elif known is not None and known is not store:
            known.close()  # its file may have been replaced since
        self._stores.pop(name, None)
        self._stores[name] = store
        self._in_use = name
        return store

    def stores(self) -> StoreTable:
        """See `stores`."""
        return StoreTable(
            AttachedStore(
                name=name,
                url=store.url,
                engine=store.url.partition(":")[0].partition("+")[0],
                session_table=store.tables.name,
                read_only=store.read_only,
                in_use=name == self._in_use,
            )
            for name, store in self._stores.items()
        )

    def names(self) -> list[str]:
        """The names of the stores."""
        return list(self._stores)

    def use(self, name: str) -> SessionStore:
        """See `use`."""
        store = self.find(name)
        self._in_use = name
        return store

    def detach(self, name: str) -> None:
        """See `detach`."""
        self.find(name).close()
        del self._stores[name]
        if self._in_use == name:
            self._in_use = None

    def name_of(self, store: SessionStore) -> str:
        """See `name_of`."""
        return next((name for name, known in self._stores.items() if known is store), _name_of(store))

    def find(self, name: str | None = None) -> SessionStore:
        """The store of a name, or the one in use.

        Raises:
            NoStore: there is none of that name, or none in use.
        """
        name = self._in_use if name is None else name
        if name in self._stores:
            return self._stores[name]
        names = ", ".join(self._stores)
        if name is not None:
            otherwise = f"Attached are: {names}." if names else f"Attach one: {_ATTACH}"
            raise NoStore(f"No store is attached as {name!r}.", did_you_mean(name, self._stores, otherwise))
        if names:
            raise NoStore(
                f"No store is in use; attached are: {names}.", f"Choose one: %kern use {next(iter(self._stores))}"
            )
        raise NoStore("No store is attached.", f"Attach one, for example: {_ATTACH}")


def _absolute(target: str | Path | SessionStore) -> str | Path | SessionStore:
    """A path that stays the same when the notebook changes its folder."""
    if isinstance(target, (str, Path)) and "://" not in str(target) and str(target) != _MEMORY:
        return Path(target).expanduser().absolute()
    return target


def _name_of(store: SessionStore) -> str:
    """The stem of the file, or the name of the database."""
    place = store.url.partition("://")[2].partition("?")[0]
    return "memory" if place.endswith(_MEMORY) else Path(place).stem or "store"


def _identity(store: SessionStore) -> tuple[str, str, bool]:
    return store.database, store.tables.name, store.read_only


_here = Attached()
"""The stores of this process."""


def attach(
    target: str | Path | SessionStore,
    *,
    name: str | None = None,
    read_only: bool = False,
    session_table: str = "agno_sessions",
) -> SessionStore:
    """Open a store, give it a name and use it. Nothing is written: a new path becomes a file at the first write.

    Attaching the same target under the same name again is harmless: the file is opened anew.

    Args:
        target: What `kern_nb.db.open_store` takes: a path, a URL, ``:memory:`` or a store.
        name: Its name here; the file's stem or the database's name where None.
        read_only: Refuse writes.
        session_table: The name of the sessions' table.

    Raises:
        BadUsage: the name belongs to another store.
        KernError: it is no store, or it cannot be opened; see `open_store`.
    """
    return _here.attach(target, name=name, read_only=read_only, session_table=session_table)


def stores() -> StoreTable:
    """The attached stores: a table to look at, with ``.df``."""
    return _here.stores()


def names() -> list[str]:
    """The names of the attached stores."""
    return _here.names()


def use(name: str) -> SessionStore:
    """Make an attached store the one in use.

    Raises:
        NoStore: there is none of that name.
    """
    return _here.use(name)


def detach(name: str) -> None:
    """Close a store and forget its name. A store in memory is gone then. No other one comes in use by itself.

    Raises:
        NoStore: there is none of that name.
    """
    _here.detach(name)


def current_store() -> SessionStore:
    """The store in use.

    Raises:
        NoStore: there is none.
    """
    return _here.find()


def name_of(store: SessionStore) -> str:
    """The name that a store is attached under; where it is not, the one it would get."""
    return _here.name_of(store)


def find(store: str | SessionStore | None) -> SessionStore:
    """A store itself, the one of a name, or (None) the one in use.

    Raises:
        NoStore: there is none.
    """
    return _here.find(store) if store is None or isinstance(store, str) else store
