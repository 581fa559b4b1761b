"""The processes that train one student together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True, slots=True)
class Team:
    """size: how many there are. index: which of them this one is; the first decides, writes and tells."""

    size: int = 1
    index: int = 0

    @classmethod
    def here(cls) -> Team:
        """The team that this process belongs to, which may be itself alone."""
        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_world_size(), distributed.get_rank())

    @property
    def is_first(self) -> bool:
        return self.index == 0

    def first_says(self, *values: int) -> tuple[int, ...]:
        """The values of the first process, in all of them; every process has to call this at the same place."""
        if self.size == 1:
            return values
        told = torch.tensor(values, device=_device())
        distributed.broadcast(told, src=0)
        return tuple(told.tolist())

    def wait(self) -> None:
        """Until all have come here."""
        if self.size > 1:
            here = torch.ones(1, device=_device())
            distributed.all_reduce(here)
            here.item()  # on a GPU the sum is only asked for until somebody reads it


def _device() -> torch.device:
    """Where tensors must be to be sent."""
    on_gpu = "nccl" in distributed.get_backend()
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
