"""Models as a caller sees them: what jobs have left, and how good it is. The names are those of the Azure ML SDK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from potstill.errors import InputError
from potstill.pipeline.progress import Progress
from potstill.service.database import Database
from potstill.service.evaluations import EvaluationResults, evaluate
from potstill.service.notebook import NotebookProgress, outside_loop
from potstill.service.registry import find_model, locate_model
from potstill.service.settings import Settings
from potstill.service.tables import ModelRecord


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a job has left.

    role: teacher, baseline (the untouched student) or distilled. version: counts the jobs that left a model of this name.
    metrics: what the job's report says of it. path: the file or folder to deploy, None where the model is an endpoint, one of
    the hub, or no longer there.
    """

    name: str
    version: int
    role: str
    job: str
    task: str
    metrics: Mapping[str, Any]
    path: Path | None
    created_at: datetime

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name, "version": self.version, "role": self.role, "job": self.job, "task": self.task,
            "path": None if self.path is None else str(self.path), "created_at": self.created_at.isoformat(),
            "metrics": dict(self.metrics),
        }


class ModelOperations:
    """`ml_client.models`."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database, self._settings = database, settings

    def list(self, name: str | None = None) -> list[Model]:
        """All models in the order in which they were left; with `name` the versions of that one."""
        with self._database.session() as session:
            wanted = select(ModelRecord).order_by(ModelRecord.number)
            records = session.scalars(wanted if name is None else wanted.where(ModelRecord.name == name))
            return [_model(session, record) for record in records]

    def get(self, name: str, version: int | None = None) -> Model:
        """The newest version of a model, or the one asked for.

        Raises:
            InputError: there is none.
        """
        with self._database.session() as session:
            return _model(session, find_model(session, name, version))

    def evaluate(
        self, model_name: str, test_data: str | Path, metrics: Sequence[str] | None = None, *, version: int | None = None,
        progress: Progress | None = None,
    ) -> EvaluationResults:
        """Measure a model on the rows of a file, in a process of its own; what was measured before is not measured again.

        Args:
            model_name: `<student>-distilled`, `<student>-baseline`, or a teacher's own name.
            test_data: Rows in any form that the job's task reads.
            metrics: Names; without them the task's own and accuracy, bleu_score and inference_time.
            progress: Where to report; tqdm's bars without it.

        Raises:
            InputError: there is no such model, the file is wrong, or a metric is unknown.
            PotstillError: the model cannot be opened, or answers nothing.
        """
        with self._database.session() as session:
            located = locate_model(session, find_model(session, model_name, version))
        rows, report = Path(test_data).expanduser(), progress or NotebookProgress()
        return outside_loop(lambda: evaluate(self._settings, located, rows, metrics, report))


def _model(session: Session, record: ModelRecord) -> Model:
    try:
        path = locate_model(session, record).model.path
    except InputError:
        path = None
    return Model(
        name=record.name, version=record.version, role=record.role, job=record.job, task=record.task,
        metrics=record.metrics, path=path, created_at=record.created_at,
    )
