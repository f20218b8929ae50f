"""Reaching the database, on both SQLite and PostgreSQL."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Table, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

MIGRATIONS: Final = Path(__file__).parent / "migrations"
_MIGRATION_LOCK: Final = 7_201_113
SECONDS: Final = 10
"""A statement that takes longer is given up: the database counts as away."""


def open_engine(url: str) -> AsyncEngine:
    """An engine for sqlite+aiosqlite or postgresql+asyncpg; it connects when it is first used."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        return create_async_engine(
            parsed,
            pool_size=10,
            pool_pre_ping=True,
            pool_timeout=SECONDS,
            connect_args={"timeout": SECONDS, "command_timeout": SECONDS},
        )
    engine = create_async_engine(parsed, connect_args={"timeout": SECONDS})

    @event.listens_for(engine.sync_engine, "connect")
    def _pragmas(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        cursor = connection.cursor()
        # Readers go on while one writes, and a crash of the process loses nothing.
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA cache_size=-32768")
        cursor.close()

    return engine


def migration_config(connection: Connection | None = None) -> Config:
    """alembic's settings."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


async def migrate(engine: AsyncEngine) -> None:
    """Bring the schema up to date; of several replicas one does it, the others wait."""
    async with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
        await connection.run_sync(lambda sync: command.upgrade(migration_config(sync), "head"))


async def upsert(
    connection: AsyncConnection,
    table: Table,
    rows: Sequence[Mapping[str, Any]],
    *,
    update: Sequence[str] = (),
    newer: str | None = None,
) -> None:
    """Insert rows; of one that is there change the named columns, or nothing.

    newer: a column; rows whose value there is smaller than the stored one change nothing.
    """
    insert: Any = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table)
    keys = [column.name for column in table.primary_key]
    if update:
        statement = statement.on_conflict_do_update(
            index_elements=keys,
            set_={name: statement.excluded[name] for name in update},
            where=statement.excluded[newer] >= table.c[newer] if newer else None,
        )
    else:
        statement = statement.on_conflict_do_nothing(index_elements=keys)
    await connection.execute(statement, list(rows))
