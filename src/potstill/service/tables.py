"""The two tables of the database: jobs and models. They are an index over run folders, which hold the truth.

The migrations in `migrations/versions` make these tables; what changes here needs a new one there.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Index, String, Text, TypeDecorator, UniqueConstraint
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

NAME_LENGTH = 200


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, stored as UTC without a zone: SQLite keeps none."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Base(DeclarativeBase):
    """What both tables share."""

    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: JSON, str: Text}  # noqa: RUF012 - SQLAlchemy's own way


class JobRecord(Base):
    """A job: one run folder.

    stage: the one at work, or where the run stopped. ticket: the place in its machine's queue, higher for later ones; None for
    runs that never queued. host: the machine it runs on. spec: the job as resolved. labels: what the user called it beside its
    name (display_name, description, tags, experiment_name). queued_at: when it was queued, or last given a process to wait in.
    pid: the process at work, or the last one. events_bytes: how much of events.jsonl the status takes account of. starts:
    processes started since it was queued.
    """

    __tablename__ = "jobs"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH), unique=True)
    run_folder: Mapped[str]
    host: Mapped[str]
    status: Mapped[str] = mapped_column(String(16))
    stage: Mapped[str | None] = mapped_column(String(16))
    ticket: Mapped[int | None]
    spec: Mapped[dict[str, Any]]
    labels: Mapped[dict[str, Any]]
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime]
    queued_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    pid: Mapped[int | None]
    events_bytes: Mapped[int] = mapped_column(default=0)
    starts: Mapped[int] = mapped_column(default=0)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    archived: Mapped[bool] = mapped_column(default=False)

    __table_args__ = (Index("jobs_queue", "host", "status", "ticket"),)


class ModelRecord(Base):
    """A model under a name and a version: a student before or after, or a teacher, of the job that it was part of.

    role: teacher, baseline or distilled; where it lies follows from the job's run folder. metrics: what the job's report says.
    """

    __tablename__ = "models"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    version: Mapped[int]
    role: Mapped[str] = mapped_column(String(16))
    job: Mapped[str] = mapped_column(String(NAME_LENGTH), index=True)
    task: Mapped[str] = mapped_column(String(32))
    metrics: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("name", "version", name="models_name_version"),)
