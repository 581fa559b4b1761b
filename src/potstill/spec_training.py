"""How a student learns: the `training` section of a job file. Part of `potstill.spec`, which exports what stands here."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from potstill.spec_models import Positive, Section

LossName = Literal[
    "ce", "forward_kl", "reverse_kl", "jsd", "skew_forward_kl", "skew_reverse_kl", "total_variation", "hidden", "attention"
]
Tracker = Literal["mlflow", "tensorboard", "trackio", "wandb"]
Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Temperature = Annotated[float, Field(ge=0.1, le=100.0)]

ON_DISTRIBUTIONS = ("forward_kl", "reverse_kl", "jsd", "skew_forward_kl", "skew_reverse_kl", "total_variation")


class SignalSpec(Section):
    """What the student is told of the teacher's distribution, where the loss compares distributions."""

    source: Literal["capture", "live"] = "capture"
    """capture: the teacher reads every answer once, and what it says is kept for all epochs and students; live: it runs beside
    the student at every step."""
    encoding: Literal["top_k", "counts"] = "top_k"
    """What is kept of a distribution. top_k: the likeliest tokens, the mass of all others, and draws from these; counts: how
    often each token came up in a number of draws, which is smaller and serves forward_kl alone."""
    mass: Annotated[float, Field(gt=0.0, le=1.0)] = 0.98
    """top_k keeps tokens until they hold this share of the probability."""
    top: Annotated[int, Field(ge=1, le=4096)] = 64
    """top_k keeps no more than this many tokens."""
    draws: Annotated[int, Field(ge=0, le=4096)] = 200
    """How many tokens counts draws at each place, and top_k in proportion to the mass of those it does not keep, by which
    forward_kl learns these one by one; 0 leaves them one mass."""

    @model_validator(mode="after")
    def _what_is_set_has_effect(self) -> SignalSpec:
        kept = {"top_k": {"mass", "top", "draws"}, "counts": {"draws"}}
        serving = {"source"} if self.source == "live" else {"source", "encoding", *kept[self.encoding]}
        for name in type(self).model_fields:  # in the order of their declaration
            if name not in serving and getattr(self, name) != type(self).model_fields[name].default:
                where = "source: live, which keeps nothing" if self.source == "live" else f"encoding: {self.encoding}"
                raise ValueError(f"{name!r} has no effect with {where}: leave it out")
        if self.encoding == "counts" and not self.draws:
            raise ValueError("counts without draws tell nothing: 'draws' of 1 and more")
        return self


class TrainingSpec(Section):
    """How the student learns."""

    method: Literal["sft", "kd"] = "sft"
    """How the student learns. sft: from the teacher's answers; kd: from the teacher's distribution at every token of them."""
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 2.0e-5
    """The peak learning rate of AdamW."""
    batch_size: Positive = 2
    """Texts a forward pass."""
    gradient_accumulation_steps: Positive = 1
    """Forward passes an optimizer step."""
    processes: Literal["auto"] | Positive = "auto"
    """How many processes train together, each with its own GPU and its own batches, so that a step sees that many times
    more texts. auto: one for each GPU of this machine, one where there is none."""
    launch: str | None = None
    """A configuration file of accelerate's (accelerate config --config_file FILE), by which it starts the processes: FSDP,
    DeepSpeed. It says how many, so processes stays auto."""
    num_epochs: Annotated[float, Field(gt=0, le=1000)] = 3
    """How often each row is seen."""
    temperature: Temperature | list[tuple[Unit, Temperature]] = 1.0
    """The softmax temperature at which distributions are compared; or a course of [share of the training, temperature] pairs,
    each of which holds until the next."""
    loss: Annotated[dict[LossName, Weight | list[tuple[Unit, Weight]]], Field(min_length=1)] = {"ce": 1.0}
    """The weight of each part of the loss, or a course of [share of the training, weight] pairs with straight lines between
    them. ce: cross-entropy on the teacher's answer; with method: kd also forward_kl (its default), reverse_kl, jsd,
    skew_forward_kl, skew_reverse_kl, total_variation, hidden, and with signal.source: live attention."""
    jsd_beta: Unit = 0.5
    """The teacher's share in the mixture that jsd compares both with; 0 is forward_kl, 1 reverse_kl."""
    skew: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """The share of one distribution that skew_forward_kl and skew_reverse_kl mix into the other."""
    signal: SignalSpec = SignalSpec()
    """What the student is told of the teacher's distribution."""
    warmup_ratio: Unit = 0.05
    """The share of the steps in which the learning rate rises."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """The decoupled weight decay of AdamW."""
    max_length: Annotated[int, Field(ge=16)] | None = None
    """The longest text, in tokens; rows that are longer are left out. Without it the model's own window."""
    early_stopping_patience: Annotated[int, Field(ge=0)] = 2
    """Epochs without a better validation loss after which training stops; 0 never does."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """The number format in which the student's layers multiply; weights, sums and the loss are float32 in any. auto: bfloat16
    where the processor or GPU multiplies it natively."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """What the order of the rows and the adapter's first weights are drawn from."""
    trackers: list[Tracker] = []
    """Where else the losses are written while it trains: mlflow, tensorboard, trackio, wandb, each as its own settings say."""
    rationale_weight: Annotated[float, Field(gt=0, le=100)] = 1.0
    """With generation.rationale: multitask, what the reasoning counts in the loss, taken as a whole, where the
    answers count 1."""

    @property
    def temperatures(self) -> tuple[float, ...]:
        """All temperatures at which distributions are compared, each once."""
        given = [self.temperature] if isinstance(self.temperature, float) else [value for _, value in self.temperature]
        return tuple(dict.fromkeys(given))

    @property
    def compares_distributions(self) -> bool:
        return any(name in ON_DISTRIBUTIONS for name in self.loss)

    @property
    def captures_signals(self) -> bool:
        """Whether what the teacher holds possible is kept before the training."""
        return self.method == "kd" and self.signal.source == "capture"

    @property
    def captures_layers(self) -> bool:
        """Whether hidden states of the teacher are kept with that."""
        return self.captures_signals and "hidden" in self.loss

    @model_validator(mode="before")
    @classmethod
    def _kd_compares_distributions(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("method") == "kd" and "loss" not in given:
            return {**given, "loss": {"forward_kl": 1.0}}
        return given

    @field_validator("temperature", "loss")
    @classmethod
    def _courses_begin_at_the_start(cls, value: Any) -> Any:
        for course in value.values() if isinstance(value, dict) else [value]:
            if isinstance(course, list):
                _check_course(course)
            elif course == 0:
                raise ValueError("a weight of 0 is a part that is not there: leave it out")
        return value

    @model_validator(mode="after")
    def _one_says_how_many(self) -> TrainingSpec:
        if self.launch is not None and self.processes != "auto":
            raise ValueError("'launch' has the number of processes in its file: leave out 'processes'")
        return self

    @model_validator(mode="after")
    def _method_and_loss_fit(self) -> TrainingSpec:
        beyond = [name for name in self.loss if name != "ce"]
        if self.method == "sft" and beyond:
            raise ValueError(f"'loss': {beyond[0]} compares the student with the teacher: it needs method: kd")
        if self.method == "sft" and self.temperature != 1.0:
            raise ValueError("'temperature' softens distributions, which method: sft does not compare")
        if self.method == "kd" and not beyond:
            raise ValueError("method: kd needs a part of 'loss' that compares student and teacher, such as forward_kl: 1.0")
        if not self.compares_distributions and self.temperature != 1.0:
            raise ValueError("'temperature' softens distributions, and no part of 'loss' compares any")
        return self

    @model_validator(mode="after")
    def _signal_serves_the_loss(self) -> TrainingSpec:
        if "attention" in self.loss and self.signal.source == "capture":
            raise ValueError("'loss': attention needs the teacher beside the student: signal: {source: live}")
        if self.signal.encoding == "counts":
            if other := [name for name in self.loss if name in ON_DISTRIBUTIONS and name != "forward_kl"]:
                raise ValueError(f"counts are unbiased for forward_kl alone, and 'loss' has {other[0]}: take encoding: top_k")
            if len(self.temperatures) > 1:
                raise ValueError("counts are drawn at one temperature, and 'temperature' has several: take encoding: top_k")
        return self


def _check_course(course: list[tuple[float, float]]) -> None:
    """
    Raises:
        ValueError: it does not begin at 0, does not rise, or is zero throughout.
    """
    if not course or course[0][0] != 0.0:
        raise ValueError("a course begins at 0, such as [[0, 1.0], [0.5, 0.2]]")
    if any(one[0] >= other[0] for one, other in pairwise(course)):
        raise ValueError("the shares of a course rise from pair to pair")
    if all(value == 0 for _, value in course):
        raise ValueError("a weight of 0 throughout is a part that is not there: leave it out")
