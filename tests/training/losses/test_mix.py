"""Which losses go with which signals, and how weights and temperature change during a training."""

from __future__ import annotations

import pytest

from potstill.training.losses.mix import LOSSES, SOFT_LOSSES, Encoding, Mix, MixSchedule, Schedule, refusal


@pytest.mark.parametrize(
    ("names", "encoding"),
    [(LOSSES, "dense"), (("ce", *SOFT_LOSSES), "top_k"), (("ce", "forward_kl"), "counts"), (("ce", "hidden"), "hidden")],
)
def test_what_a_signal_serves_is_not_refused(names: tuple[str, ...], encoding: Encoding) -> None:
    assert refusal(names, encoding, [2.0]) is None


@pytest.mark.parametrize("name", [name for name in SOFT_LOSSES if name != "forward_kl"])
def test_drawn_tokens_serve_forward_kl_alone(name: str) -> None:
    why = refusal([name, "forward_kl"], "counts")
    assert why is not None
    assert why.startswith(f"{name} cannot be had from counts")
    assert "forward_kl is linear" in why


def test_drawn_tokens_serve_one_temperature() -> None:
    why = refusal(["forward_kl"], "counts", [2.0, 1.0])
    assert why == "counts serve only the temperature they were drawn at, and the training uses 1, 2"
    assert refusal(["forward_kl"], "counts", [2.0, 2.0]) is None


@pytest.mark.parametrize(("name", "encoding"), [("attention", "top_k"), ("hidden", "top_k"), ("attention", "hidden")])
def test_layers_are_not_had_from_what_has_none(name: str, encoding: Encoding) -> None:
    why = refusal(["ce", name], encoding)
    assert why is not None
    assert name in why


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
