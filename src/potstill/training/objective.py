"""What a batch of texts costs: the parts of the loss, their weights at this point of the training, and the teacher's signal.

The loss is computed where the student's head would give logits, and in their place: from the hidden states of the target tokens
to a scalar, without the logits of all of them ever standing side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch

from potstill.signals.signal import Signal
from potstill.signals.source import Observation, SignalSource, TargetBatch
from potstill.training.head import head_gives, head_sees_only, is_plain, weight_of_loss
from potstill.training.layers import LayerTransfer, Seen, decoder_of
from potstill.training.losses.fused import FusedLoss, dense_loss, fused_loss
from potstill.training.losses.mix import Mix, MixSchedule, Schedule
from potstill.training.losses.workspace import Workspace

Batch = Mapping[str, Any]
Count: TypeAlias = torch.Tensor | int


@dataclass(frozen=True, slots=True)
class Objective:
    """What a training minimises.

    schedule: the weights and the temperature over the training. source: where the teacher's distributions come from; None for
    cross-entropy alone. layers: what is learnt from inside the teacher, None for nothing. vocabulary: the tokenizer's tokens; a
    head may have more rows, as padding. fused: the head is a plain matrix, so that the loss can take its place. workspace: its
    memory from step to step.
    """

    schedule: MixSchedule
    source: SignalSource | None
    vocabulary: int
    fused: bool
    layers: LayerTransfer | None = None
    workspace: Workspace = field(default_factory=Workspace)

    @property
    def names(self) -> tuple[str, ...]:
        """The parts of the loss, in the order in which `FusedLoss.parts` has them."""
        of_layers = () if self.layers is None else self.layers.names
        return (*_on_tokens(self.schedule.at(0.0)).token_losses, *of_layers)

    @property
    def validation_names(self) -> tuple[str, ...]:
        """The parts that validation tells, in the same sense."""
        return self._for_validation(0.0).token_losses

    def of_batch(self, model: Any, network: Any, batch: Batch, target_count: Count, share: float) -> FusedLoss:
        """The batch's share of the step's loss.

        Args:
            model: The student as its wrappers give it.
            network: The student without those that are for several devices.
            batch: What the collator made, on the model's device.
            target_count: The target tokens of the whole step.
            share: How much of the training is done, 0 to 1.
        """
        mix, texts = self.schedule.at(share), _texts(batch)
        if self.layers is None:
            signal = None if self.source is None else self.source.signal(texts, mix.temperature)
            return self._on_tokens(model, network, batch, target_count, mix, signal)
        observed = self.layers.observe(texts)
        with self.layers.watching(decoder_of(network), batch["positions"]) as seen:
            signal = self.layers.teacher.signal_in(observed, mix.temperature)
            if signal is None and self.source is not None:
                signal = self.source.signal(texts, mix.temperature)
            made = self._on_tokens(model, network, batch, target_count, _on_tokens(mix), signal)
        return self._with_layers(made, seen, observed, batch, target_count, mix)

    def on_validation(self, model: Any, network: Any, batch: Batch, share: float) -> FusedLoss:
        """The sums over a validation batch: cross-entropy as the loss, and the parts of the training's on tokens beside it."""
        mix = self._for_validation(share)
        signal = None if self.source is None else self.source.signal(_texts(batch), mix.temperature)
        return self._on_tokens(model, network, batch, 1, mix, signal)

    def _for_validation(self, share: float) -> Mix:
        mix = _on_tokens(self.schedule.at(share))
        return replace(mix, weights={**dict.fromkeys(mix.weights, 0.0), "ce": 1.0})

    def _with_layers(
        self, made: FusedLoss, seen: Seen, observed: Observation, batch: Batch, target_count: Count, mix: Mix
    ) -> FusedLoss:
        assert self.layers is not None
        loss, parts = made.loss, [made.parts]
        for name, value in zip(self.layers.names, self.layers.losses(seen, observed, batch, target_count), strict=True):
            loss = loss + mix.weights[name] * value
            parts.append((value.detach() * target_count).reshape(1))
        return replace(made, loss=loss, parts=torch.cat(parts))

    def _on_tokens(
        self, model: Any, network: Any, batch: Batch, target_count: Count, mix: Mix, signal: Signal | None
    ) -> FusedLoss:
        head = network.get_output_embeddings()
        given = {
            "target_ids": batch["target_ids"], "target_weights": batch.get("weights"), "signal": signal, "mix": mix,
            "target_count": target_count, "vocabulary": self.vocabulary,
        }
        if not self.fused:
            with head_sees_only(head, batch["positions"]):
                logits = model(input_ids=batch["input_ids"], use_cache=False).logits
            return dense_loss(logits, **given)
        made: list[FusedLoss] = []

        def in_place_of_logits(hidden: torch.Tensor) -> torch.Tensor:
            weight = weight_of_loss(network)
            keeps = weight is not head.weight and head.weight.grad is None
            made.append(fused_loss(hidden, weight, head.bias, **given, workspace=self.workspace, keeps_gradient=keeps))
            return made[0].loss

        with head_gives(head, batch["positions"], in_place_of_logits):
            loss = model(input_ids=batch["input_ids"], use_cache=False).logits
        return replace(made[0], loss=loss)


def on_answers(network: Any) -> Objective:
    """Cross-entropy on the answers, and nothing else."""
    schedule = MixSchedule({"ce": Schedule.of(1.0)}, Schedule.of(1.0))
    return Objective(schedule, None, network.get_output_embeddings().weight.shape[0], is_plain(network))


def _texts(batch: Batch) -> TargetBatch:
    return TargetBatch(batch["input_ids"], batch["positions"], batch.get("keys", ()))


def _on_tokens(mix: Mix) -> Mix:
    """The losses on tokens; where there is none, cross-entropy is told and teaches nothing."""
    weights = {name: mix.weights[name] for name in mix.token_losses}
    return replace(mix, weights=weights or {"ce": 0.0})
