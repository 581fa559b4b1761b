"""A student that learns from the teacher's distributions comes to resemble it, and what is said of that is right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from potstill.errors import InputError, JobCanceledError
from potstill.rows import Message, Row
from potstill.signals.capture import CaptureText, capture
from potstill.signals.header import StoreHeader
from potstill.signals.hidden import HiddenEncoding
from potstill.signals.keys import TextKeys
from potstill.signals.store import SignalStore
from potstill.signals.stored_layers import StoredLayers
from potstill.signals.teacher import LiveTeacher
from potstill.spec import AdapterSpec, TrainingSpec
from potstill.templates import ChatTemplate
from potstill.training import TrainingResult, train_student
from potstill.training.collator import tokenise_rows
from potstill.training.teaching import TeacherView, Teaching
from training.knowing import REAL_TOKENS, knowing_network, teaching_of

Rows = tuple[list[Row], list[Row]]


@pytest.fixture(scope="module")
def teacher(tiny_student: Path) -> LlamaForCausalLM:
    return knowing_network(tiny_student)


def run(student: Path, rows: Rows, out: Path, teaching: Teaching | None, **settings: Any) -> tuple[TrainingResult, list[Any]]:
    events: list[Any] = []
    adapter, should_stop = settings.pop("adapter", None), settings.pop("should_stop", lambda: False)
    spec = TrainingSpec(**{"learning_rate": 1e-2, "batch_size": 4, "early_stopping_patience": 0, "num_epochs": 4, **settings})
    result = train_student(
        student, *rows, out, spec, adapter=adapter, all_turns=True, on_event=lambda *event: events.append(event),
        teaching=teaching, should_stop=should_stop,
    )
    return result, events


def compared(student: Path, network: LlamaForCausalLM, rows: list[Row], temperature: float) -> tuple[float, float]:
    """Forward KL times T squared and agreement at targets, by transformers' own logits, row by row."""
    model = AutoModelForCausalLM.from_pretrained(student).eval()
    tokenizer, template = AutoTokenizer.from_pretrained(student), ChatTemplate.from_folder(student)
    texts = tokenise_rows(rows, template, tokenizer, all_turns=True, max_length=256).texts
    total, agreed, count = 0.0, 0, 0
    for text in texts:
        ids, mask = torch.tensor([text.input_ids]), torch.tensor(text.target_mask)[1:]
        with torch.no_grad():
            q, p = (one(input_ids=ids).logits[0, :-1][mask].double() for one in (model, network))
        log_p, log_q = torch.log_softmax(p / temperature, -1), torch.log_softmax(q / temperature, -1)
        total += float((log_p.exp() * (log_p - log_q)).sum()) * temperature**2
        agreed, count = agreed + int((p.argmax(-1) == q.argmax(-1)).sum()), count + int(mask.sum())
    return total / count, agreed / count


def test_it_comes_closer_to_the_teacher_and_says_how_close(
    tiny_student: Path, teacher: LlamaForCausalLM, rows: Rows, tmp_path: Path
) -> None:
    result, events = run(tiny_student, rows, tmp_path, teaching_of(teacher, tiny_student), method="kd", temperature=2.0)
    before, _ = compared(tiny_student, teacher, rows[1], 2.0)
    after, agreement = compared(tmp_path, teacher, rows[1], 2.0)
    assert after < before - 2
    told = next(point for point in result.validation_curve if point.step == result.best_step).parts
    assert told["forward_kl"] == pytest.approx(after, rel=1e-3)
    assert told["agreement"] == pytest.approx(agreement)
    parts = [values["parts"] for kind, values in events if kind == "progress"]
    assert all(set(part) == {"forward_kl", "agreement"} for part in parts)
    assert parts[-1]["forward_kl"] < parts[0]["forward_kl"]


def test_the_loss_is_the_weighted_sum_of_its_parts(
    tiny_student: Path, teacher: LlamaForCausalLM, rows: Rows, tmp_path: Path
) -> None:
    loss = {"ce": 0.25, "forward_kl": 0.5, "jsd": 2.0}
    _, events = run(tiny_student, rows, tmp_path, teaching_of(teacher, tiny_student), method="kd", loss=loss, num_epochs=1)
    for values in (values for kind, values in events if kind == "progress"):
        assert values["loss"] == pytest.approx(sum(weight * values["parts"][name] for name, weight in loss.items()), rel=1e-4)


def test_weights_and_temperature_follow_their_course(
    tiny_student: Path, teacher: LlamaForCausalLM, rows: Rows, tmp_path: Path
) -> None:
    seen: list[float] = []

    class Listening(LiveTeacher):
        def signal(self, batch: Any, temperature: float) -> Any:
            seen.append(temperature)
            return super().signal(batch, temperature)

    teaching = teaching_of(teacher, tiny_student)
    teaching = Teaching(Listening(teacher, bfloat16=False), teaching.view, teaching.knows, teaching.vocabulary)
    loss = {"forward_kl": 1.0, "ce": [(0.0, 1.0), (1.0, 0.0)]}
    _, events = run(
        tiny_student, rows, tmp_path, teaching, method="kd", loss=loss, temperature=[(0.0, 4.0), (0.5, 1.0)], num_epochs=2
    )
    steps = 6  # 21 rows in batches of 4, an epoch
    of_training = seen[:steps] + seen[-steps - 2 : -2]  # two batches of validation stand behind each epoch
    assert of_training == [4.0] * steps + [1.0] * steps
    share = [1 - step / 12 for step in range(12)]
    logged = [values for kind, values in events if kind == "progress"]
    assert [values["loss"] for values in logged] == pytest.approx(
        [values["parts"]["forward_kl"] + weight * values["parts"]["ce"] for values, weight in zip(logged, share, strict=True)],
        rel=1e-4,
    )


def test_rows_that_the_teacher_reads_otherwise_are_left_out_and_counted(
    tiny_student: Path, teacher: LlamaForCausalLM, rows: Rows, tmp_path: Path
) -> None:
    teaching = teaching_of(teacher, tiny_student)
    unknown = teaching.view.texts(rows[0][3], all_turns=True)[0].key
    result, _ = run(
        tiny_student, rows, tmp_path, Teaching(teaching.source, teaching.view, lambda key: key != unknown, REAL_TOKENS),
        method="kd", num_epochs=1,
    )
    assert result.train_untaught == (rows[0][3].id,)
    with pytest.raises(InputError, match="no training row is left") as caught:
        run(
            tiny_student, rows, tmp_path / "none", Teaching(teaching.source, teaching.view, lambda key: False, REAL_TOKENS),
            method="kd",
        )
    assert "21 of them without the teacher's probabilities" in str(caught.value.found)


def test_a_template_of_the_teachers_own_changes_its_view_and_not_what_is_learnt(tiny_student: Path) -> None:
    """Pitfall 9: the student meets its own template's text; the teacher is asked about what it would have met itself."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    ours = ChatTemplate.from_folder(tiny_student)
    own_words = ours.source.replace("You are a helpful AI assistant", "You are a teacher")
    theirs = ChatTemplate.from_source(own_words, eos_token=ours.eos_token)
    assert theirs.source != ours.source
    row = Row("a", (Message("user", "Hello?"), Message("assistant", "Yes, hello.")))
    view = TeacherView(theirs, tokenizer, TextKeys({"weights": "a"}, theirs.source))
    own = tokenise_rows([row], ours, tokenizer, all_turns=True, max_length=256).texts
    read = view.texts(row, all_turns=True)
    assert read[0].input_ids != own[0].input_ids
    teaching = Teaching(None, view, lambda key: True, REAL_TOKENS)  # type: ignore[arg-type]  # its source is not asked
    assert teaching.keys(row, own, all_turns=True) == [read[0].key]


LAYERS = {"forward_kl": 1.0, "hidden": 2.0, "attention": 3.0}
ON_LAYERS = {"method": "kd", "loss": LAYERS, "signal": {"source": "live"}}


@pytest.mark.parametrize("adapter", [None, AdapterSpec(r=2)])
def test_layers_are_learnt_from_too_and_the_projectors_stay_behind(
    tiny_student: Path, teacher: LlamaForCausalLM, rows: Rows, tmp_path: Path, adapter: AdapterSpec | None
) -> None:
    result, events = run(
        tiny_student, rows, tmp_path, teaching_of(teacher, tiny_student), adapter=adapter, **ON_LAYERS
    )
    logged = [values for kind, values in events if kind == "progress"]
    for values in logged:
        assert values["loss"] == pytest.approx(sum(w * values["parts"][name] for name, w in LAYERS.items()), rel=1e-4)
    assert logged[-1]["parts"]["hidden"] < logged[0]["parts"]["hidden"]
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert not [name for name in file.keys() if "projector" in name]  # noqa: SIM118  (the file is no mapping)
    plain, _ = run(tiny_student, rows, tmp_path / "plain", None, adapter=adapter, num_epochs=1)
    assert result.trained_parameters == plain.trained_parameters


def test_captured_layers_teach_what_those_of_a_teacher_beside_the_student_do(
    tiny_student: Path, teacher: LlamaForCausalLM, rows: Rows, tmp_path: Path
) -> None:
    beside = teaching_of(teacher, tiny_student)
    live, view = beside.source, beside.view
    assert isinstance(live, LiveTeacher)
    header = StoreHeader(view.keys, HiddenEncoding((0, 1), live.width))
    texts = [text for part in rows for row in part for text in view.texts(row, all_turns=True)]
    with SignalStore(tmp_path / "signals", header, writable=True) as store:
        capture(live, [CaptureText(text.input_ids, text.target_mask, text.key) for text in texts], [store])
    kept = replace(beside, layers=StoredLayers(SignalStore(tmp_path / "signals", header), live.layer_count))
    settings: dict[str, Any] = {"method": "kd", "loss": {"forward_kl": 1.0, "hidden": 2.0}, "signal": {"source": "live"}}
    results = [run(tiny_student, rows, tmp_path / name, one, **settings)[0] for name, one in (("a", beside), ("b", kept))]
    curves = [[point.loss for point in result.loss_curve] for result in results]
    assert curves[0] == pytest.approx(curves[1], rel=5e-3)
    assert curves[0] != curves[1]  # half precision on the way


def test_a_training_on_layers_goes_on_after_a_stop_as_if_it_had_not_stopped(
    tiny_student: Path, teacher: LlamaForCausalLM, rows: Rows, tmp_path: Path
) -> None:
    def losses(result: TrainingResult) -> list[float]:
        return [point.loss for point in result.loss_curve]

    settings = {**ON_LAYERS, "num_epochs": 2}
    whole, _ = run(tiny_student, rows, tmp_path / "whole", teaching_of(teacher, tiny_student), **settings)
    asked = iter([False, True])
    with pytest.raises(JobCanceledError):
        run(
            tiny_student, rows, tmp_path / "stopped", teaching_of(teacher, tiny_student), should_stop=asked.__next__, **settings
        )
    resumed, _ = run(tiny_student, rows, tmp_path / "stopped", teaching_of(teacher, tiny_student), **settings)
    assert losses(resumed) == losses(whole)
    assert resumed.validation_curve == whole.validation_curve
