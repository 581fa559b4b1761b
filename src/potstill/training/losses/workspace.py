"""Memory that a loss takes at every step, kept from one step to the next."""

from __future__ import annotations

from math import prod

import torch


class Workspace:
    """Blocks by name. On a processor each is kept, and grows; on other devices torch itself keeps what was freed.

    They have a hundred megabytes each. Fresh from the system every page is first filled with zeros, which adds half to the time
    of the product that fills it next, and where batches have ever other sizes a heap seldom has so large a hole.
    """

    def __init__(self) -> None:
        self._kept: dict[str, torch.Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """A tensor of any contents, in the memory of the one before with this name, which nobody may need any more."""
        if device.type != "cpu":
            return torch.empty(shape, dtype=dtype, device=device)
        size = prod(shape)
        kept = self._kept.get(name)
        if kept is None or kept.dtype != dtype or len(kept) < size:
            kept = None
            self._kept.pop(name, None)  # before the larger one is asked for
            kept = self._kept[name] = torch.empty(size, dtype=dtype)
        return kept[:size].view(shape)
