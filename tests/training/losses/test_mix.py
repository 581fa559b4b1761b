"""How the weights and the temperature of losses change during a training."""

from __future__ import annotations

import pytest

from potstill.training.losses.mix import Mix, MixSchedule, Schedule


def test_a_weight_goes_straight_from_point_to_point_and_is_constant_outside() -> None:
    schedule = Schedule.of([[0.2, 1.0], [0.6, 0.0], [1.0, 0.5]])
    assert [schedule.at(share) for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)] == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.25, 0.5])
    assert Schedule.of(0.3).at(0.7) == 0.3


def test_only_listed_temperatures_are_ever_used() -> None:
    schedule = Schedule.of([[0.0, 4.0], [0.5, 1.0]])
    mixes = MixSchedule({"ce": Schedule.of(1), "forward_kl": Schedule.of([[0, 0], [1, 2]])}, schedule)
    used = [mixes.at(i / 20).temperature for i in range(21)]
    assert used == [4.0] * 10 + [1.0] * 11
    assert schedule.values == (1.0, 4.0)
    assert mixes.at(0.25).weights == {"ce": 1.0, "forward_kl": 0.5}


def test_names_are_in_one_order_whatever_the_order_given() -> None:
    mix = Mix({"attention": 1, "jsd": 1, "ce": 1, "reverse_kl": 0})
    assert mix.token_losses == ("ce", "reverse_kl", "jsd")
    assert mix.soft_losses == ("reverse_kl", "jsd")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"weights": {"kl": 1.0}}, "unknown losses"),
        ({"weights": {"ce": -1.0}}, "0 or more"),
        ({"weights": {"ce": 1.0}, "temperature": 0.0}, "temperature above 0"),
        ({"weights": {"ce": 1.0}, "jsd_beta": 1.5}, "jsd_beta 0 to 1"),
        ({"weights": {"ce": 1.0}, "skew": 1.0}, "skew 0 to below 1"),
    ],
)
def test_a_mix_out_of_bounds_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Mix(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("points", [[], [[1.5, 1.0]], [[0.5, 1.0], [0.5, 2.0]]])
def test_a_schedule_needs_rising_shares(points: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"schedule"):
        Schedule.of(points)
