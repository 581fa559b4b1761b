"""The name of a text's signals: its content.

Two known systems align signals and texts by step number, and silently train on the wrong rows once the order changes. A key of
content cannot: it stays the same whatever the order, the batch, the path and the machine, and differs as soon as a token, a
target, the teacher or the teacher's chat template does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from potstill.rows import content_hash


@dataclass(frozen=True, slots=True)
class TextKeys:
    """Makes the keys of texts that one teacher reads.

    teacher: its `model_identity`. template: the Jinja text of its chat template; empty for one that reads texts as they are.
    """

    teacher: Mapping[str, Any]
    template: str

    @property
    def digest(self) -> str:
        """What teacher and template are, in 32 hexadecimal digits."""
        return content_hash({"teacher": dict(self.teacher), "template": self.template})

    def of(self, texts: Sequence[tuple[Sequence[int], Sequence[bool]]]) -> tuple[str, ...]:
        """One key a text, 32 hexadecimal digits of 128-bit BLAKE2b each; a text is its token ids and their target mask."""
        start = blake2b(bytes.fromhex(self.digest), digest_size=16)
        keys = []
        for input_ids, target_mask in texts:
            if len(input_ids) != len(target_mask):
                raise ValueError(f"{len(input_ids)} tokens, but a mask of {len(target_mask)}")
            text = start.copy()
            text.update(np.asarray(input_ids, dtype="<i8").tobytes())
            text.update(np.asarray(target_mask, dtype=np.uint8).tobytes())
            keys.append(text.hexdigest())
        return tuple(keys)
