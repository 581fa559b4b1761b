"""Before a job starts: where it runs, and what would go wrong with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from potstill.catalog import ResolvedModel, resolve
from potstill.errors import EndpointError, InputError, MachineError, MissingExtraError, PotstillError
from potstill.pipeline.folder import RunFolder
from potstill.pipeline.prepare import planned_splits, read_job_rows
from potstill.rows import Message, Row
from potstill.spec import JobSpec, load_job
from potstill.tasks import Task, get_task
from potstill.templates import ChatTemplate

_BYTES_PER_TOKEN = 4  # of English text; a bound for the price, not a count
_TRAINING_BYTES_PER_PARAMETER = 16  # float32 weight, gradient and the two moments of AdamW


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `error` is what is wrong with it, None where it is in order."""

    subject: str
    text: str
    error: PotstillError | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "ok": self.error is None,
            "text": self.text,
            "error": None if self.error is None else self.error.as_json(),
        }


def locate(job: Path, runs: Path) -> tuple[JobSpec, Path]:
    """A job file and the folder it runs in; a run folder, or the job file inside one, stands for itself.

    Raises:
        InputError: the job file is missing or wrong.
    """
    file = job / "job.yaml" if job.is_dir() else job
    spec = load_job(file)
    inside = file.name == "job.yaml" and RunFolder(file.parent).events.is_file()
    return spec, file.resolve().parent if inside else runs / spec.name


def preflight(job: JobSpec, root: Path) -> None:
    """What `potstill run` looks at before it makes a run folder: all that costs nothing and needs no network.

    Raises:
        PotstillError: the first thing that is wrong.
    """
    started = RunFolder(root).events.is_file()
    for subject, look in _looks(job, ask_endpoint=False).items():
        if not (started and subject == "data"):
            look()


def check_job(job: JobSpec, *, ask_endpoint: bool) -> list[Finding]:
    """Look at everything, and go on after what is wrong."""
    findings = []
    for subject, look in _looks(job, ask_endpoint=ask_endpoint).items():
        try:
            findings.append(Finding(subject, look()))
        except PotstillError as error:
            findings.append(Finding(subject, str(error), error))
    return findings


def _looks(job: JobSpec, *, ask_endpoint: bool) -> dict[str, Callable[[], str]]:
    looks: dict[str, Callable[[], str]] = {
        "data": lambda: _data(job),
        "teacher": lambda: _at_key("teacher", lambda: _model(resolve(job.teacher))),
        "student": lambda: _at_key("student", lambda: _student(job)),
        "installed": lambda: _extras(job),
        "memory": lambda: _memory(job),
        "metrics": lambda: _metrics(job),
    }
    if ask_endpoint:
        looks["endpoint"] = lambda: _endpoint(resolve(job.teacher))
        looks["price"] = lambda: _price(job)
    return looks


def _at_key(key: str, look: Callable[[], str]) -> str:
    """Look; what is wrong and names no place of its own stands at this key of the job file."""
    try:
        return look()
    except PotstillError as error:
        error.where = error.where or f"key '{key}' of the job file"
        raise


def _data(job: JobSpec) -> str:
    read = read_job_rows(job)
    parts = [f"{len(rows)} {split}" for split, rows in planned_splits(read).items()]
    gold = sum(row.reference is not None for part in read.values() for row in part.rows)
    total = sum(len(part.rows) for part in read.values())
    dropped = sum(len(part.dropped) for part in read.values())
    return f"{', '.join(parts)} rows, {gold} of {total} with a gold answer" + (f", {dropped} dropped" if dropped else "")


def _model(model: ResolvedModel) -> str:
    if model.kind == "endpoint":
        from potstill.inference import endpoint_key

        endpoint_key(model)
        return f"{model.name}: {model.model} at {_address(model)}"
    if model.path is not None:
        _template(model.path)
        return f"{model.name}: {model.path.name}"
    return f"{model.name}: {model.model} of the hub"


def _address(model: ResolvedModel) -> str:
    """An endpoint's address without the user name, password and query that its catalogue entry may hold."""
    from potstill.inference import model_identity

    return str(model_identity(model)["endpoint"])


def _student(job: JobSpec) -> str:
    from potstill.evaluation.model_size import count_layers

    model = resolve(job.student)
    if model.kind == "endpoint":
        raise InputError(
            "a student has to be a model with weights", found=f"the endpoint {_address(model)}",
            expected="a hub id, a folder or a .gguf file",
        )
    told = _model(model)
    if model.kind == "folder" and model.path is not None and not any(model.path.glob("*.safetensors")):
        raise InputError("the student has no weights", where=str(model.path), expected="one or more .safetensors files")
    layers = count_layers(model)
    if job.student.shrink is not None and layers is not None and job.student.shrink.layers > layers:
        raise InputError(
            "the student has fewer layers than asked for", where="student.shrink.layers", found=job.student.shrink.layers,
            expected=f"1..{layers}",
        )
    return told


def _template(path: Path) -> ChatTemplate:
    return ChatTemplate.from_gguf(path) if path.suffix == ".gguf" else ChatTemplate.from_folder(path)


def _extras(job: JobSpec) -> str:
    needed = {"torch": "train", "transformers": "train", "accelerate": "train"}
    if job.student.adapter is not None:
        needed["peft"] = "train"
    if job.export.formats:
        needed |= {"gguf": "export", "xllamacpp": "local"}
    if resolve(job.teacher).kind == "gguf":
        needed["xllamacpp"] = "local"
    for module, extra in needed.items():
        if find_spec(module) is None:
            raise MissingExtraError(extra, module)
    return "all that this job needs"


def _memory(job: JobSpec) -> str:
    import psutil

    from potstill.evaluation.model_size import count_parameters

    model = resolve(job.student)
    parameters = count_parameters(model) if model.kind in ("folder", "gguf") else None
    if parameters is None:
        return "unknown until the student is downloaded"
    trained = 2 if job.student.adapter is not None else _TRAINING_BYTES_PER_PARAMETER
    needed = parameters * (4 if job.student.adapter is not None else 0) + parameters * trained
    available = int(psutil.virtual_memory().available)
    if needed > available and job.student.shrink is None:
        raise MachineError(
            "the student does not fit into memory for training",
            found=f"{available / 1e9:.1f} GB available",
            expected=f"about {needed / 1e9:.1f} GB for {parameters / 1e6:.0f} million parameters",
            hint="take a smaller student, student.shrink, or student.adapter: {type: lora}",
        )
    return f"about {needed / 1e9:.1f} GB to train {parameters / 1e6:.0f} million parameters, {available / 1e9:.1f} GB available"


def _metrics(job: JobSpec) -> str:
    task = get_task(job.task)
    wanted = job.evaluation.metrics
    if wanted == "auto":
        return f"{', '.join(task.metrics)}; the main one is {task.main_metric}"
    unknown = [name for name in wanted if name not in (*task.metrics, "bleu_score", "inference_time")]
    if unknown:
        raise InputError(
            "unknown metric", where="evaluation.metrics", found=", ".join(unknown), expected=", ".join(task.metrics)
        )
    return ", ".join(wanted)


def _endpoint(model: ResolvedModel) -> str:
    if model.kind != "endpoint":
        return "none: the teacher runs on this machine"
    from potstill.inference import open_engine
    from potstill.inference.client import Client
    from potstill.inference.journal import Journal
    from potstill.inference.protocol import Request, Sampling

    async def ask() -> str:
        import tempfile

        engine = open_engine(model, concurrency=1)
        try:
            with tempfile.TemporaryDirectory() as folder, Journal(Path(folder)) as journal:
                request = Request((Message("user", "Say yes."),), Sampling(max_tokens=8))
                answer = await Client(engine, journal, concurrency=1, max_attempts=2).ask(request)
        finally:
            await engine.aclose()
        if answer.reply is None:
            raise EndpointError("the endpoint does not answer", where=_address(model), found=answer.failure)
        return f"answered in {answer.reply.latency_s:.2f} s"

    return asyncio.run(ask())


def _price(job: JobSpec) -> str:
    """What the teacher costs at most: every row once, and the test rows again where they have no gold answer."""
    from potstill.pipeline.generate import needs_reference

    model = resolve(job.teacher)
    splits = planned_splits(read_job_rows(job))
    task = get_task(job.task).with_rows([row for rows in splits.values() for row in rows])
    limit = task.max_tokens(job.generation.max_tokens)
    test_times = needs_reference(splits["test"]) + ("teacher" in job.evaluation.models)
    asked = splits["train"] + splits["validation"] + splits["test"] * test_times
    prompt = sum(_prompt_tokens(task, row, limit) for row in asked)
    requests = sum(task.turns(row) for row in asked)
    answers = requests * limit
    counted = f"{requests} requests, about {prompt} prompt tokens, at most {answers} answer tokens"
    if model.kind != "endpoint":
        return f"{counted}; nothing to pay, the teacher runs on this machine"
    if model.price is None:
        return f"{counted}; the price of {model.name} is not known"
    dollars = (prompt * model.price.input + answers * model.price.output) / 1e6
    return f"{counted}: at most about ${dollars:.2f} (prices of {model.price.date or 'the catalogue'})"


def _prompt_tokens(task: Task, row: Row, limit: int) -> int:
    """Of all requests of a row: each turn is asked with what stands before it, the answers to earlier turns included."""
    once = sum(len(message.content.encode()) // _BYTES_PER_TOKEN + 4 for message in task.teacher_messages(row))
    turns = task.turns(row)
    return turns * once + turns * (turns - 1) // 2 * limit
