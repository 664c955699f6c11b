"""The tables of usage: single calls for a while, and their sums by the hour and by the day.

    usage_calls   one row a call                       what is in here is in the sums too, and in them once
    usage_hours   one row for each hour, organisation, team, key, graph, model, node and set of tags
    usage_days    the same by day

A call of a graph has a row of its own, without model or node, that counts it as a request, and one for each
of its nodes and models, which count tokens, time and money. So every column may be summed over any rows.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Index,
    MetaData,
    String,
    Table,
    Text,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from cluster.errors import ConfigError

LOCK_S: Final = 30
"""How long a writer of SQLite waits for another."""

_tables = MetaData()

calls = Table(
    "usage_calls",
    _tables,
    Column("tenant", String(128), primary_key=True),
    Column("call_id", String(128), primary_key=True),
    Column("at_ms", BigInteger, nullable=False, index=True),
    Column("team", String(128), nullable=False),
    Column("caller", String(128), nullable=False),
    Column("endpoint", String(256), nullable=False),
    Column("model", String(256), nullable=False),
    Column("ended", String(16), nullable=False),
    Column("milliseconds", BigInteger, nullable=False),
    Column("first_token_ms", BigInteger),
    Column("tags", Text, nullable=False),
    Column("shares", Text, nullable=False),
)
"""Tags and shares are JSON, as `accounting.model` has them. Times are Unix milliseconds."""

DIMENSIONS: Final = ("tenant", "team", "caller", "graph", "model", "node", "tags")
COUNTS: Final = (
    *("requests", "cut", "failed", "input_tokens", "cached_tokens", "output_tokens"),
    *("engine_ns", "nanodollars", "milliseconds", "first_token_ms", "first_tokens"),
)
"""`cut`: calls whose client left or whose time was over. `failed`: all others that did not end well.
`milliseconds` and `first_token_ms` are sums, the latter over as many calls as `first_tokens` says."""


def _sums(name: str) -> Table:
    return Table(
        name,
        _tables,
        Column("id", String(32), primary_key=True),
        Column("start", BigInteger, nullable=False),
        Column("tenant", String(128), nullable=False),
        Column("team", String(128), nullable=False),
        Column("caller", String(128), nullable=False),
        Column("graph", String(256), nullable=False),
        Column("model", String(256), nullable=False),
        Column("node", String(512), nullable=False),
        Column("tags", Text, nullable=False),
        *(Column(count, BigInteger, nullable=False) for count in COUNTS),
        Index(f"{name}_of_tenant", "tenant", "start"),
        Index(f"{name}_by_start", "start"),
    )


hours = _sums("usage_hours")
"""`start` is the hour's first second, as Unix time; `id` a digest of it and all dimensions."""
days = _sums("usage_days")


def open_tables(url: str) -> Engine:
    """The database at a SQLAlchemy URL, its tables made where they are missing.

    Raises `ConfigError`, which never quotes the URL: it may hold a password.
    """
    try:
        place = make_url(url)
        options: dict[str, Any] = {}
        if place.get_backend_name() == "sqlite":
            options["connect_args"] = {"timeout": LOCK_S}
        engine = create_engine(place, hide_parameters=True, **options)
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _make_durable)
        with engine.begin() as connection:
            _create(connection)
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(
            "usage.url is no URL of a database that SQLAlchemy knows, such as sqlite:////data/usage.db or "
            "postgresql+psycopg://user:password@host/name",
            param="usage.url",
        ) from error
    except ImportError as error:
        raise ConfigError(f"usage.url needs the package {error.name}", param="usage.url") from error
    except SQLAlchemyError as error:
        raise ConfigError(
            f"the database of usage.url cannot be opened: {type(error).__name__}", param="usage.url"
        ) from error
    return engine


def _create(connection: Connection) -> None:
    _tables.create_all(connection)


def _make_durable(connection: Any, _record: Any) -> None:
    """The store forgets a call once it is in here: it must be on the disk by then."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
