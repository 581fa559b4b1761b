"""The database of jobs and models: SQLite in the user's data folder, or PostgreSQL by URL.

Opening one brings its tables up to date (`migrations/`), once, however many processes open it at the same time. What goes wrong
inside is raised as an error a user can act on; a password in the URL is in none of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from filelock import FileLock
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session

from potstill.errors import CorruptFileError, InputError, MachineError, MissingExtraError, PotstillError
from potstill.service.settings import Settings

HEAD = "0001"  # the newest migration
_MIGRATIONS = "potstill.service:migrations"
_BUSY_TIMEOUT_S = 60.0
_ADVISORY_LOCK = 0x706F7473  # any number of our own: only one process at a time migrates a PostgreSQL database


class Database:
    """An open database; cheap to make, and every process opens its own.

    Raises:
        InputError: the URL is none that can be used.
        MissingExtraError: PostgreSQL's driver is not installed.
        MachineError: the database does not answer, or cannot be written.
        CorruptFileError: the file is no database of this kind.
    """

    def __init__(self, settings: Settings) -> None:
        self._url = _url(settings.database_url)
        self._home = settings.home
        self.place = self._url.render_as_string(hide_password=True)
        with self._explained():
            self._engine = self._connectable()
            self._migrate()

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session that is committed at the end, and rolled back by an error.

        Raises:
            PotstillError: see the class.
        """
        with self._explained(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    def close(self) -> None:
        self._engine.dispose()

    def _connectable(self) -> sa.Engine:
        if self._url.get_backend_name() != "sqlite":
            return sa.create_engine(self._url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
        if self._url.database:
            Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
        return sa.create_engine(self._url, connect_args={"timeout": _BUSY_TIMEOUT_S})

    def _migrate(self) -> None:
        """Bring the tables up to date; without a write where they are."""
        with self._engine.connect() as connection:
            if _revision(connection) == HEAD:
                return
        self._home.mkdir(parents=True, exist_ok=True)
        with FileLock(self._home / "migration.lock"), self._engine.begin() as connection:
            if self._engine.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
            found = _revision(connection)
            if found is None or found < HEAD:
                _upgrade(connection)
            elif found > HEAD:
                raise InputError(
                    "the database was made by a newer version of Potstill", where=self.place, found=f"version {found}",
                    expected=f"version {HEAD}", hint="upgrade: pip install --upgrade potstill",
                )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except PotstillError:
            raise
        except ModuleNotFoundError as error:
            raise MissingExtraError("postgres", str(error.name)) from None
        except (SQLAlchemyError, OSError) as error:
            raise self._explain(error) from None

    def _explain(self, error: Exception) -> PotstillError:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        found = str(cause).strip().partition("\n")[0].replace(self._url.password or "\0", "***")
        broken = isinstance(cause, sqlite3.DatabaseError) and not isinstance(cause, sqlite3.OperationalError)
        if broken and not isinstance(cause, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            return CorruptFileError(
                "the database file is damaged", where=str(self._url.database), found=found,
                hint="move it away, then: potstill jobs import runs (the run folders hold the truth)",
            )
        if isinstance(error, DatabaseError | OSError):
            return MachineError("the database cannot be used", where=self.place, found=found,
                                hint="POTSTILL_DATABASE_URL or potstill.yaml says where it is")
        raise error


def _url(text: str) -> URL:
    try:
        url = sa.make_url(text)
    except ArgumentError:
        raise InputError("the database's URL cannot be read", where="database_url",
                         expected="such as postgresql://user@host/database") from None
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _revision(connection: sa.Connection) -> str | None:
    """The migration that the tables are at; None where there are no tables."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found: Any = connection.execute(sa.text("select version_num from alembic_version")).scalar()
    return None if found is None else str(found)


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", _MIGRATIONS)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
