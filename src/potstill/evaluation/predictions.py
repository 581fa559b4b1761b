"""What goes into the measuring of one model and what comes out: its settings, its predictions, its profile.

A worker process reads `Measurement` as JSON (no secret is in it: keys stay in the environment) and writes one prediction a test
row to evaluation/<label>.jsonl and the profile beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import orjson

from potstill.catalog.model import Price, ResolvedModel
from potstill.inference.budget import Budget
from potstill.inference.protocol import FinishReason, Sampling
from potstill.rows import Reference, damaged, read_jsonl, write_jsonl


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model to be measured on one file of test rows.

    label: what the report calls the model (teacher, baseline, distilled, ...). labels: the closed label set of the task, where
    it has one. untrained: the model gets the task's full prompt, as a teacher does, instead of the row as it stands. worked: it
    reasons before it answers, because it is asked to or has learnt to. sample: numbers independent answers; the second answer
    of a teacher whose first is the reference has another number. concurrency: rows at once in the throughput phase. context:
    tokens of context a slot. budget: of the run whose journals lie beside `journal`, where what the model costs
    counts; None counts nothing.
    """

    label: str
    model: ResolvedModel
    rows: Path
    task: str
    output: Path
    journal: Path
    sampling: Sampling
    labels: tuple[str, ...] = ()
    untrained: bool = False
    worked: bool = False
    sample: int = 0
    concurrency: int = 4
    context: int | None = None
    threads: int | None = None
    budget: Budget | None = None

    @property
    def profile(self) -> Path:
        """Where the profile goes: evaluation/<label>.profile.json."""
        return self.output.with_suffix(".profile.json")

    def to_json(self) -> bytes:
        return orjson.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: bytes) -> Measurement:
        """Read what `to_json` wrote."""
        data = orjson.loads(text)
        model, sampling = data["model"], data["sampling"]
        price = Price(**model["price"]) if model["price"] else None
        path = Path(model["path"]) if model["path"] else None
        server_args = tuple(model["server_args"])
        return cls(
            **{
                **data,
                "model": ResolvedModel(**{**model, "price": price, "path": path, "server_args": server_args}),
                "sampling": Sampling(
                    **{**sampling, "stop": tuple(sampling["stop"]), "choices": tuple(sampling["choices"])}
                ),
                "labels": tuple(data["labels"]),
                "budget": Budget(**data["budget"]) if data["budget"] else None,
                **{key: Path(data[key]) for key in ("rows", "output", "journal")},
            }
        )


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model said to one row.

    prediction: its answer, or the list of its turns in a conversation; a turn that got no answer is an empty text. latency_s:
    mean seconds a response, None where nothing came back. Token counts are sums over the row's responses, None where the
    endpoint does not tell. finish_reason: of the last response. failure: why an answer is missing.
    """

    id: str
    prediction: str | list[str]
    reference: Reference
    latency_s: float | None
    prompt_tokens: int | None
    completion_tokens: int | None
    finish_reason: FinishReason | None
    failure: str | None


@dataclass(frozen=True, slots=True)
class Profile:
    """What running a model costs; each figure is None where it was not measured.

    parameters: weights. memory_bytes: growth of resident memory from before the model is loaded to the peak while it answers.
    inference_time, latency_p50, latency_p95: seconds a response, one at a time. throughput_rps: responses a second at
    throughput_concurrency. cost_per_1k_requests: dollars, under the assumptions named. prompt_tokens, completion_tokens: sums
    over all responses.
    """

    parameters: int | None
    disk_bytes: int | None
    memory_bytes: int | None
    inference_time: float | None
    latency_p50: float | None
    latency_p95: float | None
    throughput_rps: float | None
    throughput_concurrency: int | None
    cost_per_1k_requests: float | None
    responses: int
    prompt_tokens: int | None
    completion_tokens: int | None
    assumptions: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Profile:
        values = {field.name: data[field.name] for field in fields(cls)}
        return cls(**{**values, "assumptions": tuple(data["assumptions"])})


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> int:
    """One JSON object a line; returns how many."""
    return write_jsonl(path, (asdict(prediction) for prediction in predictions))


def read_predictions(path: Path) -> list[Prediction]:
    """Read what `write_predictions` wrote.

    Raises:
        CorruptFileError: it is something else.
    """
    predictions = []
    for number, entry in enumerate(read_jsonl(path), 1):
        try:
            predictions.append(Prediction(**entry))
        except TypeError as error:
            raise damaged(path, number, "no prediction") from error
    return predictions


def write_profile(path: Path, profile: Profile) -> None:
    """Written whole or not at all: its presence says that the model was measured to the end."""
    write_jsonl(path, [asdict(profile)])


def read_profile(path: Path) -> Profile:
    """Read what `write_profile` wrote.

    Raises:
        CorruptFileError: it is something else.
    """
    try:
        return Profile.from_dict(next(read_jsonl(path)))
    except (StopIteration, KeyError, TypeError) as error:
        raise damaged(path, 1, "no profile") from error
