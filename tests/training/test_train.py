"""A training learns, keeps its best epoch, says what happened and writes a student that others can open."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from potstill.errors import InputError, JobFailedError
from potstill.rows import Row
from potstill.spec import AdapterSpec, TrainingSpec
from potstill.student import processor
from potstill.templates import ChatTemplate
from potstill.training import TrainingResult, train_student
from potstill.training.checkpoints import checkpoint_path
from potstill.training.collator import tokenise_rows

Rows = tuple[list[Row], list[Row]]
MakeRow = Callable[[int, str], Row]


def run(student: Path, rows: Rows, out: Path, **settings: Any) -> tuple[TrainingResult, list[tuple[str, dict[str, Any]]]]:
    events: list[tuple[str, dict[str, Any]]] = []
    adapter, reasons = settings.pop("adapter", None), settings.pop("rationale_rows", ())
    spec = TrainingSpec(**{"learning_rate": 1e-2, "batch_size": 4, "early_stopping_patience": 0, **settings})
    result = train_student(
        student, *rows, out, spec, adapter=adapter, all_turns=True, on_event=lambda *event: events.append(event),
        rationale_rows=reasons,
    )
    return result, events


def plain_loss(model_dir: Path, rows: list[Row], tokenizer: PreTrainedTokenizerBase) -> float:
    """Nats a target token by transformers' own loss, row by row and without padding."""
    model = AutoModelForCausalLM.from_pretrained(model_dir).eval()
    texts = tokenise_rows(rows, ChatTemplate.from_folder(model_dir), tokenizer, all_turns=True, max_length=256).texts
    total, count = 0.0, 0
    for text in texts:
        ids, mask = torch.tensor([text.input_ids]), torch.tensor([text.target_mask])
        with torch.no_grad():
            loss = model(input_ids=ids, labels=torch.where(mask, ids, -100)).loss
        total, count = total + loss.item() * int(mask.sum()), count + int(mask.sum())
    return total / count


def test_it_learns_and_writes_a_whole_student(
    tiny_student: Path, rows: Rows, tmp_path: Path, tokenizer: PreTrainedTokenizerBase, capfd: pytest.CaptureFixture[str]
) -> None:
    result, events = run(tiny_student, rows, tmp_path, num_epochs=3)
    assert capfd.readouterr() == ("", "")
    assert result.best_validation_loss < plain_loss(tiny_student, rows[1], tokenizer) - 3
    # What was reported is what the saved weights give, by another path.
    assert plain_loss(tmp_path, rows[1], tokenizer) == pytest.approx(result.best_validation_loss, abs=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path).backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert ChatTemplate.from_folder(tmp_path).source == ChatTemplate.from_folder(tiny_student).source
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads((tiny_student / "config.json").read_text())
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == tokenizer.eos_token_id
    assert not list(tmp_path.glob(".*"))
    kinds = [kind for kind, _ in events]
    assert (kinds.count("progress"), kinds.count("metric")) == (18, 3)
    last = events[-2][1]
    assert {"step": 18, "total_steps": 18, "epoch": 3.0, "eta_s": 0.0}.items() <= last.items()
    assert last["tokens_per_s"] > 0
    assert [values["validation_loss"] for kind, values in events if kind == "metric"] == [
        point.loss for point in result.validation_curve
    ]


def test_the_best_epoch_is_kept_and_training_stops_when_it_overfits(
    tiny_student: Path, rows: Rows, make_row: MakeRow, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    held_out = [make_row(i, "Something else entirely, so that learning the rest by heart does harm.") for i in range(5)]
    result, _ = run(tiny_student, (rows[0], held_out), tmp_path, num_epochs=20, early_stopping_patience=2)
    losses = [point.loss for point in result.validation_curve]
    assert result.stopped_early
    assert result.overfitting
    assert result.best_validation_loss == min(losses) < losses[-1]
    assert result.steps == result.best_step + 2 * 6
    assert plain_loss(tmp_path, held_out, tokenizer) == pytest.approx(min(losses), abs=1e-4)
    steps = {int(path.name.removeprefix("checkpoint-")) for path in (tmp_path / "checkpoints").iterdir()}
    assert steps == {result.best_step, result.steps}


def test_an_adapter_is_merged_into_the_weights(
    tiny_student: Path, rows: Rows, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    result, _ = run(tiny_student, rows, tmp_path, num_epochs=2, adapter=AdapterSpec(r=4, dropout=0.1))
    assert result.trained_parameters < result.parameters / 100
    assert plain_loss(tmp_path, rows[1], tokenizer) == pytest.approx(result.best_validation_loss, abs=1e-4)
    before, after = (AutoModelForCausalLM.from_pretrained(folder) for folder in (tiny_student, tmp_path))
    assert torch.equal(before.lm_head.weight, after.lm_head.weight)
    assert not torch.equal(before.model.layers[0].mlp.down_proj.weight, after.model.layers[0].mlp.down_proj.weight)
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (settings["lora_alpha"], settings["base_model_name_or_path"]) == (8, None)
    assert str(tiny_student) not in "".join(path.read_text() for path in tmp_path.glob("*.json"))


def test_accumulated_batches_make_the_same_step_as_one(
    tiny_student: Path, rows: Rows, make_row: MakeRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "multiplies_bfloat16", lambda: False)  # its rounding depends on the shape of a batch
    four = [make_row(i, "word " * length) for i, length in enumerate((1, 3, 20, 40))]  # very unequal numbers of targets
    for name, sizes in (("one", (4, 1)), ("four", (1, 4))):
        run(tiny_student, (four, rows[1]), tmp_path / name, num_epochs=3, batch_size=sizes[0],
            gradient_accumulation_steps=sizes[1], learning_rate=1e-3)
    one, other = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("one", "four"))
    for name, weight in one.items():
        torch.testing.assert_close(weight, other[name], rtol=1e-4, atol=1e-5)


def test_bfloat16_learns_as_much_as_float32(tiny_student: Path, rows: Rows, tmp_path: Path) -> None:
    losses = []
    for precision in ("float32", "bfloat16", "auto"):
        result, _ = run(tiny_student, rows, tmp_path / precision, num_epochs=3, precision=precision)
        losses.append([point.loss for point in result.validation_curve])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.02)  # of losses that fall from 10.8 to about 3
    assert losses[2] == losses[processor.multiplies_bfloat16()]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "bfloat16").dtype == torch.float32


def test_the_last_checkpoint_holds_no_optimizer(tiny_student: Path, rows: Rows, tmp_path: Path) -> None:
    result, _ = run(tiny_student, rows, tmp_path, num_epochs=2)
    assert not (checkpoint_path(tmp_path / "checkpoints", result.steps) / "optimizer.pt").exists()


def test_reasoning_counts_in_the_loss_as_much_as_it_is_told_to(
    tiny_student: Path, rows: Rows, make_row: MakeRow, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    """One step over all texts: its loss is that of the untrained student, which finds it easier to say the same word again."""
    reasons = [make_row(100 + i, "the " * 40) for i in range(8)]
    of_answers, of_reasons = (plain_loss(tiny_student, part, tokenizer) for part in (rows[0], reasons))
    result, _ = run(
        tiny_student, rows, tmp_path, num_epochs=1, batch_size=64, rationale_rows=reasons, rationale_weight=0.25
    )
    assert result.train_texts == 21 + 8
    assert result.loss_curve[0].loss == pytest.approx((of_answers + 0.25 * of_reasons) / 1.25, abs=0.01)
    assert of_answers - of_reasons > 0.1
    # The epoch is chosen by the answers alone, which are all that such a student is asked for.
    assert result.best_validation_loss == pytest.approx(plain_loss(tmp_path, rows[1], tokenizer), abs=1e-4)


def test_half_an_epoch_and_long_rows(tiny_student: Path, rows: Rows, make_row: MakeRow, tmp_path: Path) -> None:
    long = make_row(99, "much too long " * 100)
    result, _ = run(tiny_student, ([*rows[0], long], rows[1]), tmp_path, num_epochs=0.5)
    assert (result.steps, result.train_texts, result.train_left_out) == (3, 21, ("r99",))
    with pytest.raises(InputError) as caught:
        run(tiny_student, ([long], rows[1]), tmp_path / "none")
    assert caught.value.where == "training.max_length"


def test_a_training_that_diverges_says_so(tiny_student: Path, rows: Rows, tmp_path: Path) -> None:
    weights = AutoModelForCausalLM.from_pretrained(tiny_student)
    with torch.no_grad():
        weights.model.norm.weight.fill_(math.nan)
    broken = tmp_path / "broken"
    weights.save_pretrained(broken)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (broken / name).write_bytes((tiny_student / name).read_bytes())
    with pytest.raises(JobFailedError, match="diverged"):
        run(broken, rows, tmp_path / "out")


def test_a_tracker_gets_what_the_log_gets(tiny_student: Path, rows: Rows, tmp_path: Path) -> None:
    """TensorBoard's own format, in which names and numbers stand as they are."""
    result, _ = run(tiny_student, rows, tmp_path, num_epochs=1, trackers=["tensorboard"])
    (file,) = (tmp_path / "checkpoints" / "runs").rglob("events.*")
    written = file.read_bytes()
    assert b"train/loss" in written
    assert b"train/grad_norm" in written
    assert b"eval/loss" in written
    assert result.steps == 6
