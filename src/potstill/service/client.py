"""The client, under the names of the Azure ML SDK: code written for its distillation jobs moves over by changing the import.

    from potstill import MLClient
    from potstill.entities import DistillationJob
"""

from __future__ import annotations

from pathlib import Path

from potstill.errors import InputError
from potstill.service.database import Database
from potstill.service.jobs import JobOperations
from potstill.service.models import ModelOperations
from potstill.service.settings import Settings, load_settings


class MLClient:
    """Jobs and models of this machine, or of all that share a database.

    jobs: create_or_update, get, list, stream, cancel, archive, restore, import_runs. models: evaluate, list, get.

    Args:
        credential: Taken for the sake of code written for Azure, and not used: nothing here needs an account.
        settings: Where things are; see `from_config`.

    Raises:
        PotstillError: the database cannot be opened.
    """

    def __init__(self, credential: object | None = None, *, settings: Settings | None = None) -> None:
        self.settings = settings or load_settings()
        database = Database(self.settings)
        self.jobs = JobOperations(database, self.settings)
        self.models = ModelOperations(database, self.settings)

    @classmethod
    def from_config(
        cls, credential: object | None = None, *, path: str | Path | None = None, file_name: str | None = None
    ) -> MLClient:
        """A client as a config file, the environment and the defaults have it (`potstill.service.settings`).

        Args:
            credential: Not used; see the class.
            path: The config file, or the folder it lies in; looked for without it.
            file_name: Its name in that folder, where it is not potstill.yaml.

        Raises:
            InputError: the file is missing or wrong.
            PotstillError: the database cannot be opened.
        """
        if file_name is not None:
            path = Path(path or ".") / file_name
        if path is not None and Path(path).suffix == ".json":
            raise InputError("this is a configuration of Azure, not of Potstill", where=str(path),
                             expected="a potstill.yaml, or none at all", hint="docs: Jobs on this machine")
        return cls(credential, settings=load_settings(Path(path).expanduser() if path is not None else None))
