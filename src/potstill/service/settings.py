"""Where jobs and models are recorded, and how many jobs run at once: a config file, the environment over it, defaults under it.

The file is `potstill.yaml` in the current folder or one above it, else `config.yaml` in the user's configuration folder:

    database_url: postgresql://me@host/potstill    # default: SQLite in the user's data folder
    runs: runs                                     # where run folders go; relative paths start at the file's folder
    max_parallel_jobs: 1                           # jobs at once on this machine

The environment's POTSTILL_DATABASE_URL, POTSTILL_RUNS and POTSTILL_MAX_PARALLEL_JOBS come before the file. POTSTILL_HOME takes
the place of the user's data folder.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from potstill.spec import Section
from potstill.validation import explain
from potstill.yaml_files import read_mapping

FILE_NAME = "potstill.yaml"
_VARIABLES = {
    "database_url": "POTSTILL_DATABASE_URL",
    "runs": "POTSTILL_RUNS",
    "max_parallel_jobs": "POTSTILL_MAX_PARALLEL_JOBS",
}
_EXAMPLES = {"database_url": "a URL such as postgresql://user@host/database, or sqlite:////path/to/potstill.db"}


class _File(Section):
    """What a config file may say."""

    database_url: Annotated[str, Field(pattern=r"^(postgresql|sqlite)(\+\w+)?://")] | None = None
    runs: str | None = None
    max_parallel_jobs: Annotated[int, Field(ge=1, le=1024)] | None = None


class Settings(Section):
    """What the service needs to know. home: the user's data folder. host: this machine's name."""

    home: Path
    database_url: Annotated[str, Field(repr=False)]
    runs: Path
    max_parallel_jobs: int = 1
    host: str

    def environment(self) -> dict[str, str]:
        """The variables that give another process these settings. The URL may hold a password: never write them down."""
        return {
            "POTSTILL_HOME": str(self.home),
            "POTSTILL_DATABASE_URL": self.database_url,
            "POTSTILL_RUNS": str(self.runs),
            "POTSTILL_MAX_PARALLEL_JOBS": str(self.max_parallel_jobs),
        }


def load_settings(path: Path | None = None) -> Settings:
    """The settings as file, environment and defaults make them.

    Args:
        path: The config file, or a folder that holds a `potstill.yaml`; looked for where it is not given.

    Raises:
        InputError: the file or a variable is wrong, or the file that was named does not exist.
    """
    file = _named(path) if path is not None else _found()
    folder, said = (file.parent, _read(file)) if file is not None else (Path.cwd(), _File())
    given = _from_environment()
    home = _home()
    runs = given.runs or (str(folder / Path(said.runs).expanduser()) if said.runs else "runs")
    return Settings(
        home=home,
        database_url=given.database_url or said.database_url or f"sqlite:///{home / 'potstill.db'}",
        runs=Path(runs).expanduser().resolve(),
        max_parallel_jobs=given.max_parallel_jobs or said.max_parallel_jobs or 1,
        host=platform.node() or "localhost",
    )


def _home() -> Path:
    import platformdirs

    named = os.environ.get("POTSTILL_HOME")
    return Path(named).expanduser().resolve() if named else platformdirs.user_data_path("potstill")


def _named(path: Path) -> Path:
    return path / FILE_NAME if path.is_dir() else path


def _found() -> Path | None:
    import platformdirs

    here = Path.cwd()
    users = platformdirs.user_config_path("potstill") / "config.yaml"
    return next((file for file in (*(folder / FILE_NAME for folder in (here, *here.parents)), users) if file.is_file()), None)


def _read(file: Path) -> _File:
    expected = "keys such as database_url, runs, max_parallel_jobs"
    return _check(read_mapping(file, what="the config file", expected=expected), source=str(file))


def _from_environment() -> _File:
    values = {key: os.environ[name] for key, name in _VARIABLES.items() if os.environ.get(name)}
    return _check(values, source="the environment (" + ", ".join(_VARIABLES[key] for key in values) + ")")


def _check(values: Mapping[Any, Any], *, source: str) -> _File:
    try:
        return _File.model_validate(values)
    except ValidationError as error:
        raise explain(error, _File, source=source, examples=_EXAMPLES) from None
