"""The database: made and brought up to date once, the same tables on both kinds, and clear words where it cannot be used."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from potstill.errors import CorruptFileError, InputError, MachineError
from potstill.service.database import HEAD, Database
from potstill.service.settings import Settings, load_settings
from potstill.service.tables import Base
from service.postgres import PASSWORD

OPEN = """
from potstill.service.database import Database
from potstill.service.settings import load_settings
Database(load_settings())
"""


def engine_of(settings: Settings) -> sa.Engine:
    return sa.create_engine(settings.database_url.replace("postgresql://", "postgresql+psycopg://"))


def test_the_migrations_make_the_tables_that_the_code_knows(settings: Settings) -> None:
    Database(settings).close()
    with engine_of(settings).connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert connection.execute(sa.text("select version_num from alembic_version")).scalar() == HEAD


def test_many_processes_may_open_it_for_the_first_time_at_once(settings: Settings) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", OPEN], env={**os.environ, **settings.environment()}, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    errors = [process.communicate(timeout=60)[1].decode() for process in processes]
    assert [(process.returncode, error) for process, error in zip(processes, errors, strict=True)] == [(0, "")] * 4


def test_a_newer_database_is_not_touched(settings: Settings) -> None:
    Database(settings).close()
    with engine_of(settings).begin() as connection:
        connection.execute(sa.text("update alembic_version set version_num = '9999'"))
    with pytest.raises(InputError, match="newer version of Potstill"):
        Database(settings)


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_named_with_the_way_out(place: Path, content: bytes) -> None:
    settings = load_settings()
    settings.home.mkdir()
    file = settings.home / "potstill.db"
    file.write_bytes(content)
    with pytest.raises(CorruptFileError) as error:
        Database(settings)
    assert error.value.where == str(file)
    assert "potstill jobs import" in str(error.value.hint)
    assert file.read_bytes() == content


def test_a_folder_that_cannot_be_made(place: Path) -> None:
    (place / "home").write_text("a file")
    with pytest.raises(MachineError):
        Database(load_settings())


def test_a_server_that_does_not_answer_is_named_without_its_password(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_DATABASE_URL", "postgresql://me:hunter2@127.0.0.1:9/potstill")
    with pytest.raises(MachineError) as error:
        Database(load_settings())
    assert "127.0.0.1:9" in str(error.value.where)
    assert "hunter2" not in str(error.value)


def test_a_wrong_password_is_not_repeated(place: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_DATABASE_URL", postgres_url.replace(PASSWORD, "another-secret"))
    with pytest.raises(MachineError) as error:
        Database(load_settings())
    assert "another-secret" not in str(error.value)


def test_a_transaction_that_fails_leaves_nothing(settings: Settings) -> None:
    database = Database(settings)

    def forget_and_fail() -> None:
        with database.session() as session:
            session.execute(sa.text("update alembic_version set version_num = '0000'"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        forget_and_fail()
    with database.session() as session:
        assert session.execute(sa.text("select version_num from alembic_version")).scalar() == HEAD


def test_sqlite_is_a_file_that_other_programs_read(place: Path) -> None:
    Database(load_settings()).close()
    with sqlite3.connect(place / "home" / "potstill.db") as connection:
        names = {name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")}
    assert {"jobs", "models"} <= names
