"""Hidden states of a teacher's layers that were captured before, so that it need not run beside the student."""

from __future__ import annotations

from collections.abc import Sequence

from potstill.errors import InputError
from potstill.signals.hidden import HiddenEncoding
from potstill.signals.source import Observation, TargetBatch
from potstill.signals.store import SignalStore


class StoredLayers:
    """A store of hidden states as a `LayerSource`.

    Args:
        store: Holds hidden states.
        layer_count: How many layers the teacher has, of which the store has some.

    Raises:
        InputError: the store holds distributions.
    """

    def __init__(self, store: SignalStore, layer_count: int) -> None:
        if not isinstance(store.encoding, HiddenEncoding):
            raise InputError("this store holds distributions, no hidden states", found=store.encoding.name)
        self._store, self._encoding, self._layer_count = store, store.encoding, layer_count

    @property
    def width(self) -> int:
        """Ht, the width of the teacher's hidden states."""
        return self._encoding.width

    @property
    def layer_count(self) -> int:
        """How many decoder layers the teacher has."""
        return self._layer_count

    def observe(
        self, batch: TargetBatch, *, hidden_layers: Sequence[int] = (), attention_layers: Sequence[int] = ()
    ) -> Observation:
        """The hidden states of the batch's keys.

        Raises:
            InputError: a text has none here.
            ValueError: a layer that was not captured is asked for, or attention, which never is.
        """
        if attention_layers or not set(hidden_layers) <= set(self._encoding.layers):
            raise ValueError(f"of layers {self._encoding.layers} hidden states were captured, and nothing else")
        states = self._store.read_hidden(batch.keys)
        counts = {len(of_layer) for of_layer in states.values()}
        if counts != {len(batch.positions)}:
            raise ValueError(f"hidden states of {counts} positions, but a batch of {len(batch.positions)}")
        device = batch.positions.device
        return Observation(None, {layer: states[layer].to(device) for layer in hidden_layers}, {})

    def signal_in(self, observed: Observation, temperature: float) -> None:
        """Distributions have a store of their own."""
