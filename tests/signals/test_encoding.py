"""What is packed comes back: tokens and tails exactly, probabilities to a stated error, for every size of vocabulary."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from potstill.errors import InputError
from potstill.signals.counts import CountsEncoding, starts_of
from potstill.signals.encoding import encoding_of
from potstill.signals.hidden import HiddenEncoding
from potstill.signals.packing import Body
from potstill.signals.signal import TopK
from potstill.signals.top_k import TopKEncoding

VOCABULARIES = [300, 49_152, 151_936, 262_144]  # the last two need 18 bits an id
TEMPERATURES = (0.7, 1.0, 2.0)
STARTS = torch.full((30_001,), 0.5, dtype=torch.float64)
LEAST_TAIL = 1e-12
LEAST = float(np.log(np.finfo(np.float32).tiny))  # -87 nats: a smaller tail is told as this one
MOST_OFF = 0.003  # a probability, at temperature 1


def peaked_logits(vocabulary: int, rows: int = 12) -> torch.Tensor:
    """From one certain token to nearly flat, with the largest tokens anywhere."""
    torch.manual_seed(vocabulary)
    sharpness = torch.linspace(0.5, 8.0, rows)[:, None]
    logits = torch.randn(rows, vocabulary) * sharpness
    logits[-1, vocabulary - 1] = 200.0
    return logits


def through_top_k(encoding: TopKEncoding, logits: torch.Tensor, temperature: float) -> TopK:
    arrays = encoding.select(logits, STARTS[: len(logits)])
    halves = [tuple(part[:5] for part in arrays), tuple(part[5:] for part in arrays)]
    return encoding.decode([Body(len(half[0]), encoding.pack(*half)) for half in halves], temperature)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_top_k_comes_back_at_every_temperature(vocabulary: int) -> None:
    logits = peaked_logits(vocabulary)
    encoding = TopKEncoding(vocabulary, TEMPERATURES)
    for temperature in TEMPERATURES:
        signal = through_top_k(encoding, logits, temperature)
        exact = torch.log_softmax(logits.double() / temperature, dim=1)
        used = signal.logprobs > -torch.inf
        assert used.sum(1).max() <= 64
        for row in range(len(logits)):
            ids = signal.ids[row][used[row]]
            assert sorted(ids.tolist()) == sorted(exact[row].topk(len(ids)).indices.tolist())
            rest = exact[row].clone()
            rest[ids] = -torch.inf
            torch.testing.assert_close(signal.log_tail[row].double(), rest.logsumexp(0).clamp_min(LEAST), rtol=1e-5, atol=1e-5)
        off = (signal.logprobs.double().exp() - exact.gather(1, signal.ids).exp())[used].abs().max()
        assert off < MOST_OFF / min(temperature, 1.0)
        total = signal.logprobs.double().exp().sum(1) + signal.log_tail.double().exp()
        torch.testing.assert_close(total, torch.ones(len(logits)).double(), rtol=1e-6, atol=1e-6)


def test_entries_follow_the_mass_at_the_hottest_temperature() -> None:
    logits = torch.tensor([[0.6, 0.3, 0.09, 0.01], [0.25, 0.25, 0.25, 0.25]]).log()
    assert TopKEncoding(4, (1.0,), mass=0.85).select(logits, STARTS[:2])[2].tolist() == [2, 4]
    assert TopKEncoding(4, (1.0, 4.0), mass=0.85).select(logits, STARTS[:2])[2].tolist() == [3, 4]
    assert TopKEncoding(4, (1.0,), mass=0.85, top=3).select(logits, STARTS[:2])[2].tolist() == [2, 3]


def test_where_all_tokens_are_entries_no_tail_is_left() -> None:
    logits = torch.randn(12, 300)
    signal = through_top_k(TopKEncoding(300, mass=1.1, top=300), logits, 1.0)
    assert signal.ids.shape == (12, 300)
    assert torch.isinf(signal.log_tail).all()
    assert signal.drawn is not None
    assert signal.drawn.shares.sum() == 0
    full = torch.full_like(logits, -torch.inf).scatter(1, signal.ids, signal.logprobs)
    assert (full.exp() - logits.softmax(1)).abs().max() < MOST_OFF


def test_the_largest_error_of_a_probability() -> None:
    """Two tokens at every distance: a byte's steps are widest beside the probability where its error weighs most."""
    distance = torch.linspace(0.0, 30.0, 30_001)
    logits = torch.stack([torch.zeros_like(distance), -distance], dim=1)
    encoding = TopKEncoding(2, mass=1.0)
    arrays = encoding.select(logits, STARTS[: len(logits)])
    signal = encoding.decode([Body(len(logits), encoding.pack(*arrays))], 1.0)
    told = torch.zeros(len(logits), 2).scatter_add(1, signal.ids, signal.logprobs.exp())
    off = (told - logits.softmax(1)).abs().max()
    assert 0.002 < off < MOST_OFF


def test_rounding_moves_a_distribution_by_less_than_half_a_thousandth_of_a_nat() -> None:
    logits = peaked_logits(49_152)
    signal = through_top_k(TopKEncoding(49_152), logits, 1.0)
    exact = torch.log_softmax(logits.double(), dim=1).gather(1, signal.ids)
    used = signal.logprobs > -torch.inf
    divergence = torch.where(used, exact.exp() * (exact - signal.logprobs), 0.0).sum(1)
    assert divergence.abs().max() < 5e-4


@pytest.mark.parametrize("encoding", [TopKEncoding(290, (1.0,), top=20), CountsEncoding(290)])
def test_padding_of_the_head_is_never_a_token(encoding: TopKEncoding | CountsEncoding) -> None:
    """Pitfall: padded vocabularies."""
    logits = torch.randn(6, 300)
    logits[:, 290:] = -torch.inf
    arrays = encoding.select(logits, torch.full((6,), 0.999999, dtype=torch.float64))
    assert max(part.max() for part in arrays if part.dtype == np.int64) < 290


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_draws_from_a_tail_come_back_at_every_temperature(vocabulary: int) -> None:
    logits = peaked_logits(vocabulary)
    encoding = TopKEncoding(vocabulary, TEMPERATURES, draws=50)
    arrays = encoding.select(logits, STARTS[:12])
    for at, temperature in enumerate(TEMPERATURES):
        signal = through_top_k(encoding, logits, temperature)
        exact = torch.log_softmax(logits.double() / temperature, dim=1)
        assert signal.drawn is not None
        torch.testing.assert_close(signal.drawn.shares.sum(1), signal.log_tail.exp(), rtol=1e-5, atol=1e-30)
        for row in range(12):
            drawn = arrays[4][row, at][arrays[4][row, at] >= 0]
            tail = signal.log_tail[row].exp().item()
            assert len(drawn) == pytest.approx(50 * tail, abs=1) if tail > LEAST_TAIL else len(drawn) <= 1
            assert not set(drawn) & set(signal.ids[row][signal.logprobs[row] > -torch.inf].tolist())
            tokens, counts = np.unique(drawn, return_counts=True)
            used = signal.drawn.shares[row] > 0
            told = dict(zip(signal.drawn.ids[row][used].tolist(), signal.drawn.shares[row][used].tolist(), strict=True))
            if tail > LEAST_TAIL:
                expected = dict(zip(tokens.tolist(), (tail * counts / len(drawn)).tolist(), strict=True))
                assert told == pytest.approx(expected)
                of_drawn = tail * exact[row, drawn].mean().item()
                assert signal.drawn.log_p[row].item() == pytest.approx(of_drawn, rel=1e-3)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_mean_of_entries_and_draws_is_the_distribution(temperature: float) -> None:
    """Over starts at equal distances, as of counts below."""
    logits = torch.randn(1, 500)
    encoding, rounds = TopKEncoding(500, TEMPERATURES, top=10, draws=20), 500
    starts = (torch.arange(rounds, dtype=torch.float64) + 0.5) / rounds
    arrays = encoding.select(logits.expand(rounds, -1), starts)
    signal = encoding.decode([Body(rounds, encoding.pack(*arrays))], temperature)
    assert signal.drawn is not None
    known = torch.zeros(rounds, 500).scatter_add(1, signal.ids, signal.logprobs.exp())
    mean = known.scatter_add(1, signal.drawn.ids, signal.drawn.shares).mean(0)
    entries = signal.ids[0]
    exact = (logits[0] / temperature).softmax(0)
    torch.testing.assert_close(mean[entries], exact[entries], rtol=0, atol=MOST_OFF)
    others = torch.ones(500).scatter(0, entries, 0.0).bool()
    torch.testing.assert_close(mean[others], exact[others], rtol=0, atol=2 / rounds / 10)


def test_without_draws_a_tail_is_one_mass() -> None:
    encoding = TopKEncoding(300, draws=0)
    arrays = encoding.select(torch.randn(4, 300), STARTS[:4])
    assert encoding.decode([Body(4, encoding.pack(*arrays))], 1.0).drawn is None
    assert len(encoding.pack(*arrays)) < len(TopKEncoding(300).pack(*TopKEncoding(300).select(torch.randn(4, 300), STARTS[:4])))


def test_told_entries_are_cut_to_the_largest_and_the_others_join_the_tail() -> None:
    encoding = TopKEncoding(49_152, top=2, draws=0)
    told = torch.tensor([[0.2, 0.5, 0.1], [0.0, 0.0, 0.0]]).log()
    nothing_told = torch.tensor([0.2, 1.0]).log()
    signal = TopK(torch.tensor([[7, 8, 9], [0, 0, 0]]), told, nothing_told)
    signal = encoding.decode([Body(2, encoding.pack_told(signal))], 1.0)
    assert signal.ids.tolist() == [[8, 7], [0, 0]]
    torch.testing.assert_close(signal.logprobs[0].exp(), torch.tensor([0.5, 0.2]), rtol=0, atol=MOST_OFF)
    torch.testing.assert_close(signal.log_tail.exp(), torch.tensor([0.3, 1.0]))
    assert torch.isinf(signal.logprobs[1]).all()


def test_told_entries_are_not_packed_where_draws_would_be_read() -> None:
    signal = TopK(torch.tensor([[7]]), torch.tensor([[-0.1]]), torch.tensor([-2.4]))
    with pytest.raises(ValueError, match="no draws"):
        TopKEncoding(300).pack_told(signal)


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_counts_come_back(vocabulary: int, temperature: float) -> None:
    logits = peaked_logits(vocabulary)
    encoding = CountsEncoding(vocabulary, temperature, draws=40)
    ids, log_p = encoding.select(logits, torch.from_numpy(starts_of("ab" * 16, 12)))
    bodies = [Body(5, encoding.pack(ids[:5], log_p[:5])), Body(7, encoding.pack(ids[5:], log_p[5:]))]
    signal = encoding.decode(bodies, temperature)
    for row in range(12):
        tokens, counts = np.unique(ids[row], return_counts=True)
        kept = signal.shares[row] > 0
        told = dict(zip(signal.ids[row][kept].tolist(), signal.shares[row][kept].tolist(), strict=True))
        assert told == pytest.approx(dict(zip(tokens.tolist(), (counts / 40).tolist(), strict=True)))
        of_drawn = torch.log_softmax(logits[row].double() / temperature, dim=0)[ids[row]].mean()
        assert signal.log_p[row].item() == pytest.approx(of_drawn.item(), rel=1e-3, abs=1e-6)
    expected = logits[-1].div(temperature).softmax(0)[vocabulary - 1]
    assert expected == signal.shares[-1, 0] == 1.0


def test_the_mean_of_counts_is_the_distribution() -> None:
    """Over starts at equal distances the mean is no matter of chance: it has to be the distribution itself."""
    logits = torch.randn(1, 500) * 2
    encoding, rounds = CountsEncoding(500, 1.3, draws=20), 500
    starts = (torch.arange(rounds, dtype=torch.float64) + 0.5) / rounds
    ids, _ = encoding.select(logits.expand(rounds, -1), starts)
    mean = np.bincount(ids.ravel(), minlength=500) / ids.size
    np.testing.assert_allclose(mean, (logits[0] / 1.3).softmax(0).numpy(), atol=1 / ids.size)


def test_no_count_is_off_by_a_whole_draw() -> None:
    probabilities = torch.randn(50, 500).mul(2).softmax(1)
    ids, _ = CountsEncoding(500, draws=30).select(probabilities.log(), torch.from_numpy(starts_of("cd" * 16, 50)))
    counts = np.stack([np.bincount(row, minlength=500) for row in ids])
    assert np.abs(counts - 30 * probabilities.numpy()).max() < 1.0 + 1e-4


def test_starts_follow_from_the_key_alone() -> None:
    first = starts_of("ab" * 16, 1000)
    assert (first[:10] == starts_of("ab" * 16, 10)).all()
    assert (first != starts_of("ac" * 16, 1000)).all()
    assert 0.0 <= first.min() < 0.01
    assert 0.99 < first.max() < 1.0


def test_hidden_states_come_back_beside_outliers() -> None:
    encoding = HiddenEncoding((0, 3), 64)
    hidden = {layer: torch.randn(9, 64) for layer in (0, 3)}
    hidden[3][:, 5] = 90_000.0  # more than half precision holds
    hidden[0][2] = 0.0
    arrays = encoding.select(hidden)
    back = encoding.decode([Body(4, encoding.pack(*(a[:4] for a in arrays))), Body(5, encoding.pack(*(a[4:] for a in arrays)))])
    for layer, states in hidden.items():
        bound = states.abs() * 2**-11 + states.abs().amax(1, keepdim=True) * 2**-24
        assert ((back[layer] - states).abs() <= bound).all()


def test_a_temperature_that_was_not_captured_is_refused_with_those_that_were() -> None:
    with pytest.raises(InputError) as caught:
        TopKEncoding(300, TEMPERATURES).decode([], 1.5)
    assert (caught.value.found, caught.value.expected) == ("1.5", "0.7 or 1 or 2")
    with pytest.raises(InputError) as caught:
        CountsEncoding(300, 0.7).decode([], 1.0)
    assert caught.value.expected == "0.7"


@pytest.mark.parametrize("encoding", [TopKEncoding(300, TEMPERATURES), CountsEncoding(300), HiddenEncoding((1, 2), 32)])
def test_an_encoding_is_made_again_from_its_settings(encoding: TopKEncoding | CountsEncoding | HiddenEncoding) -> None:
    assert encoding_of(encoding.settings) == encoding == replace(encoding)
