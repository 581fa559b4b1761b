"""What a teacher has to tell besides its answers is known before it is asked."""

from __future__ import annotations

from typing import Any

import pytest

from potstill.errors import InputError
from potstill.inference.protocol import Capabilities
from potstill.pipeline.asking import check_logprobs


@pytest.mark.parametrize(
    ("told", "temperature", "wrong"),
    [
        ("raw", 0.7, None), ("tempered", 1.0, None), ("tempered", 0.0, None),
        ("tempered", 0.7, "at the sampling temperature alone"), ("none", 1.0, "does not tell"),
    ],
)
def test_a_teacher_whose_log_probabilities_are_of_no_use_is_refused(told: Any, temperature: float, wrong: str | None) -> None:
    capabilities = Capabilities(choices=False, local=False, logprobs=told)
    if wrong is None:
        check_logprobs("teacher", capabilities, temperature)
    else:
        with pytest.raises(InputError, match=wrong):
            check_logprobs("teacher", capabilities, temperature)
