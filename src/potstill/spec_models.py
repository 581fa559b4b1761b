"""How a job file names a model: teacher, student, judge. Part of `potstill.spec`, which exports what stands here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

EngineName = Literal["anthropic", "vllm", "sglang"]
Positive = Annotated[int, Field(ge=1)]
Value = Annotated[str, Field(coerce_numbers_to_str=True, json_schema_extra={"type": ["string", "number"]})]


class Section(BaseModel):
    """A section of the job file: unknown keys are errors, values never change after reading.

    The text under each key is its description in the JSON Schema that editors read (`potstill schema`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ModelSpec(Section):
    """How the user names a model: exactly one of a name (catalogue, hub id, folder, file) and a path, or an endpoint."""

    model: str | None = None
    """A name of the catalogue, a hub id (org/name), or with 'endpoint' the name that it serves the model under."""
    path: str | None = None
    """A model folder in the hub's layout, or a .gguf file; relative paths start at the job file."""
    endpoint: str | None = None
    """The address of an OpenAI-style chat endpoint, such as https://host/v1."""
    engine: EngineName | None = None
    """What answers. anthropic: an endpoint that speaks Anthropic's protocol; vllm, sglang: a server that is started on this
    machine and stopped again, or with 'endpoint' one that runs. Without it OpenAI's protocol, or this process."""
    server_args: list[Annotated[str, Field(coerce_numbers_to_str=True)]] = []
    """More arguments for the server that 'engine' starts, such as [--tensor-parallel-size, 2]."""
    batch: bool = False
    """Ask through the vendor's batch API: at half the price, answered within 24 hours."""
    api_key_env: str | None = None
    """The environment variable, or the entry of the system keyring, that holds the endpoint's key."""
    concurrency: Annotated[int, Field(ge=1, le=4096)] | None = None
    """The most requests in flight; without it 32 at an endpoint, 8 on this machine."""
    context_window: Annotated[int, Field(ge=256)] | None = None
    """The longest prompt and answer together, in tokens, where the model does not say it itself."""
    trust_remote_code: bool = False
    """Run the Python code that comes with a model of the hub."""

    @model_validator(mode="after")
    def _names_one_model(self) -> ModelSpec:
        if (self.model is None) == (self.path is None):
            raise ValueError("give either 'model' or 'path'")
        if self.endpoint is not None and self.model is None:
            raise ValueError("an endpoint needs 'model', the name it serves the model under")
        check_address(self.endpoint)
        check_engine(self)
        if self.endpoint is not None and urlsplit(self.endpoint).password is not None:
            raise ValueError("an endpoint here holds no password: name the key's variable in api_key_env, or put the endpoint "
                             "into a catalogue of your own (POTSTILL_CATALOG)")
        return self


def check_engine(spec: ModelSpec) -> None:
    """Keys that fit together.

    Raises:
        ValueError: they do not.
    """
    starts_server = spec.engine in ("vllm", "sglang") and spec.endpoint is None
    if spec.server_args and not starts_server:
        raise ValueError("'server_args' are for a server that is started: engine: vllm or sglang, without an endpoint")
    if spec.engine == "anthropic" and spec.path is not None:
        raise ValueError("engine: anthropic is for a model behind an endpoint")
    if spec.batch and (spec.engine in ("vllm", "sglang") or spec.path is not None):
        raise ValueError("'batch' is for a vendor's endpoint: a model of your own machine answers at once")


def check_address(endpoint: str | None) -> None:
    """An address that can be asked.

    Raises:
        ValueError: it is none.
    """
    if endpoint is None:
        return
    if not endpoint.startswith(("http://", "https://")):
        raise ValueError("an endpoint starts with http:// or https://")
    parts = urlsplit(endpoint)
    if not parts.hostname or parts.port == 0:  # to ask for the port fails where it is no number up to 65535
        raise ValueError("an endpoint names a host, and a port from 1 to 65535 where it names one")


class TeacherSpec(ModelSpec):
    """One of several teachers: a model, and which rows it answers."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    """What rows and report call it; without it the model's own name."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Its part of the rows where generation.strategy is mix, over the sum of all weights."""
    routes: Annotated[list[Value], Field(min_length=1)] | None = None
    """The values of generation.route_by whose rows it answers; without it, the rows that no other teacher answers."""

    @property
    def called(self) -> str:
        """Its name, or what the user called the model, without the folders before it."""
        return self.name or self.model or Path(str(self.path)).stem


class ShrinkSpec(Section):
    """How the student is made smaller before it learns."""

    layers: Positive
    """How many decoder layers are kept."""


class AdapterSpec(Section):
    """Train a low-rank adapter instead of all weights; it is merged before export."""

    type: Literal["lora"] = "lora"
    """The kind of adapter."""
    r: Annotated[int, Field(ge=1, le=1024)] = 16
    """The rank of the adapter's matrices."""
    alpha: Annotated[float, Field(gt=0)] | None = None
    """The adapter's scale is alpha / r; without it twice the rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """The share of the adapter's inputs that is set to zero in training."""


class StudentSpec(ModelSpec):
    """The student: a model, and what is done to it before training."""

    shrink: ShrinkSpec | None = None
    """Drop layers before training."""
    adapter: AdapterSpec | None = None
    """Train a low-rank adapter instead of all weights."""

    @model_validator(mode="after")
    def _learns_in_this_process(self) -> StudentSpec:
        if self.engine is not None or self.batch:
            raise ValueError("'engine' and 'batch' are for models that are asked, not for the student")
        return self


class JudgeSpec(ModelSpec):
    """A model that judges answers: a model, what it is told to look for, and what it is asked."""

    rubric: Annotated[str, Field(min_length=1, max_length=20_000)] | None = None
    """What makes an answer good, in the user's own words; without it the task's own rubric."""
    scale: Literal["1-5", "0-1"] = "1-5"
    """The scores it gives: 1 to 5, of which 4 and 5 are accepted, or 0 to 1, accepted from 0.5."""
    pairwise: bool = True
    """Also compare the distilled model's answers with the baseline's and the teacher's, each pair in both orders."""
    allow_self: bool = False
    """Let the teacher or the student judge, which favours its own answers."""

    @model_validator(mode="after")
    def _is_asked_at_once(self) -> JudgeSpec:
        if self.batch:
            raise ValueError("'batch' is for teachers: a judge is asked at once")
        return self


def with_absolute_path(spec: ModelSpec, folder: Path) -> ModelSpec:
    """The same model; a relative path is taken from `folder`."""
    if spec.path is not None:
        return spec.model_copy(update={"path": str((folder / Path(spec.path).expanduser()).resolve())})
    if spec.endpoint is None and spec.model is not None:
        path = (folder / Path(spec.model).expanduser()).resolve()
        if spec.model.startswith((".", "/", "~")) or spec.model.endswith(".gguf") or (path.is_dir() and "/" in spec.model):
            return spec.model_copy(update={"model": None, "path": str(path)})
    return spec
