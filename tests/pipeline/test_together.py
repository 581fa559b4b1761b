"""Two processes train one student together as one does with steps twice as long; stops and errors reach all of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from pipeline.jobs import events
from potstill.errors import InputError, JobCanceledError, JobFailedError
from potstill.pipeline.capture import Capture
from potstill.pipeline.events import EventLog
from potstill.pipeline.folder import RunFolder
from potstill.pipeline.progress import Silent
from potstill.pipeline.stage import Context
from potstill.pipeline.train import Train
from potstill.rows import Message, Row, write_rows
from potstill.spec import JobSpec, TrainingSpec
from potstill.training.launching import Launch, launch_of, run_together
from threads import one_thread

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="two processes would share the GPU")
COMMON = {"learning_rate": 1e-2, "batch_size": 2, "num_epochs": 2, "early_stopping_patience": 0}
TOGETHER, ALONE = {"processes": 2}, {"processes": 1, "gradient_accumulation_steps": 2}
TRAINED = 9  # in batches of 2 the last step of an epoch is one row for the first process, and nothing for the second


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with one_thread():
        yield


@pytest.fixture(scope="module")
def teacher(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student's tokenizer and template, and weights of its own, surer of themselves than random ones are."""
    folder = tmp_path_factory.mktemp("teacher")
    for file in tiny_student.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    torch.manual_seed(1)
    network = LlamaForCausalLM(LlamaConfig.from_pretrained(tiny_student))
    with torch.no_grad():
        network.model.norm.weight.mul_(30.0)
    network.save_pretrained(folder)
    return folder


def context_of(root: Path, teacher: Path, student: Path, training: dict[str, Any], *, canceled: bool = False) -> Context:
    """A run whose rows are curated."""
    rows = [
        Row(f"r{i}", (Message("user", "please " * (1 + i % 5)), Message("assistant", "I will." + " Thank you." * (i % 3))))
        for i in range(TRAINED + 3)
    ]
    folder = RunFolder(root)
    for part in (folder.rows, folder.curated):
        for split, chosen in (("train", rows[:TRAINED]), ("validation", rows[TRAINED:]), ("test", rows[:1])):
            write_rows(part / f"{split}.jsonl", chosen)
    job = JobSpec.model_validate({
        "name": "together", "task": "conversation", "teacher": {"path": str(teacher)}, "student": {"path": str(student)},
        "data": {"train": "rows.jsonl"}, "training": {**COMMON, **training},
    })
    return Context(job, folder, EventLog(folder.events), Silent(), lambda: canceled)


def told(root: Path) -> list[tuple[int, float, dict[str, float]]]:
    return [(event["step"], event["loss"], event["parts"]) for event in events(root) if event["event"] == "step"]


def validated(root: Path) -> list[dict[str, float]]:
    return [
        {name: value for name, value in event.items() if name.startswith("validation_")}
        for event in events(root) if event["event"] == "metric"
    ]


def assert_same(together: Path, alone: Path, steps: int) -> None:
    """To float rounding, which Adam's division makes larger where gradients are small."""
    assert [step for step, *_ in told(together)] == list(range(1, steps + 1))
    for (_, ours, our_parts), (_, theirs, their_parts) in zip(told(together), told(alone), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
        assert our_parts == pytest.approx(their_parts, rel=1e-3)
    for ours, theirs in zip(validated(together), validated(alone), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    one, other = (load_file(root / "student" / "model.safetensors") for root in (together, alone))
    assert one.keys() == other.keys()
    for name, weight in one.items():
        torch.testing.assert_close(weight, other[name], rtol=0, atol=1e-3)


def test_answers_are_learnt_as_by_one_process_and_its_checkpoints_are_not_anothers(
    tmp_path: Path, teacher: Path, tiny_student: Path
) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    Train().run(context_of(alone, teacher, tiny_student, ALONE), "f")
    summary = Train().run(context_of(together, teacher, tiny_student, TOGETHER), "f")
    assert_same(together, alone, steps=6)
    assert summary["best_epoch"] == 2
    with pytest.raises(InputError, match="as many processes as it began with") as caught:
        Train().run(context_of(alone, teacher, tiny_student, TOGETHER), "f")
    assert (caught.value.where, caught.value.found, caught.value.expected) == ("training.processes", "2", "1")


def test_distributions_are_learnt_as_by_one_process_and_go_on_after_a_stop(
    tmp_path: Path, teacher: Path, tiny_student: Path
) -> None:
    kd = {"method": "kd", "loss": {"forward_kl": 1.0, "ce": 0.5}, "temperature": 2.0}
    alone, together = tmp_path / "alone", tmp_path / "together"
    for root, how in ((alone, ALONE), (together, TOGETHER)):
        Capture().run(context_of(root, teacher, tiny_student, {**kd, **how}), "f")
    Train().run(context_of(alone, teacher, tiny_student, {**kd, **ALONE}), "f")
    with pytest.raises(JobCanceledError):
        Train().run(context_of(together, teacher, tiny_student, {**kd, **TOGETHER}, canceled=True), "f")
    assert [step for step, *_ in told(together)] == [1]
    Train().run(context_of(together, teacher, tiny_student, {**kd, **TOGETHER}), "f")
    assert_same(together, alone, steps=6)
    assert told(together)[0][2].keys() == {"ce", "forward_kl", "agreement"}


FSDP = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config:
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_cpu_ram_efficient_loading: true
  fsdp_reshard_after_forward: true
  fsdp_state_dict_type: SHARDED_STATE_DICT
  fsdp_version: 2
machine_rank: 0
main_process_port: {port}
mixed_precision: 'no'
num_machines: 1
num_processes: 2
"""
# accelerate splits weights over GPUs alone; what it does there works on processors too, once it takes them for such.
TAKEN_FOR_GPUS = """
import os
if "RANK" in os.environ:
    from accelerate.state import DistributedType, PartialState
    PartialState._prepare_backend = lambda self, *given, **named: ("gloo", DistributedType.MULTI_GPU)
"""


@pytest.mark.minutes
def test_split_weights_learn_the_same_and_go_on_after_a_stop(
    tmp_path: Path, teacher: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        (tmp_path / "fsdp.yaml").write_text(FSDP.format(port=listener.getsockname()[1]))
    (tmp_path / "sitecustomize.py").write_text(TAKEN_FOR_GPUS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setenv("ACCELERATE_TORCH_DEVICE", "cpu")
    alone, together, launch = tmp_path / "alone", tmp_path / "together", {"launch": str(tmp_path / "fsdp.yaml")}
    Train().run(context_of(alone, teacher, tiny_student, ALONE), "f")
    with pytest.raises(JobCanceledError):
        Train().run(context_of(together, teacher, tiny_student, launch, canceled=True), "f")
    checkpoint = together / "student" / "checkpoints" / "checkpoint-1"
    assert {"pytorch_model_fsdp.bin", "optimizer.bin", "model.safetensors"} <= {file.name for file in checkpoint.iterdir()}
    Train().run(context_of(together, teacher, tiny_student, launch), "f")
    assert_same(together, alone, steps=6)


def test_the_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    """A launcher of one process is what the guard and the workers see of any."""
    (tmp_path / "lasting.py").write_text(
        "import os, pathlib, time\npathlib.Path('pid').write_text(str(os.getpid()))\ntime.sleep(600)\n"
    )
    starter = (
        "from pathlib import Path\nfrom potstill.training.launching import Launch, run_together\n"
        "class One(Launch):\n"
        "    def command(self, module, argument):\n"
        "        import sys; return [sys.executable, '-m', module]\n"
        "run_together('lasting', Path('request.json'), One(1, True), Path('log'), print, lambda: False)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    parent = subprocess.Popen([sys.executable, "-c", starter], cwd=tmp_path, env=environment)
    pid = tmp_path / "pid"
    wait_for(lambda: pid.is_file() and pid.read_text() != "")
    parent.kill()
    parent.wait()
    wait_for(lambda: not psutil.pid_exists(int(pid.read_text())))


def wait_for(is_so: Any, within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_ends_without_a_word_leaves_its_last_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "falling.py").write_text("print('a word of its own', flush=True)\nraise RuntimeError('fell over')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setattr(Launch, "command", lambda self, module, argument: [sys.executable, "-m", module])
    with pytest.raises(JobFailedError) as caught:
        run_together("falling", tmp_path / "r.json", Launch(1, True), tmp_path / "log", print, lambda: False)
    assert caught.value.found == "RuntimeError: fell over"
    assert caught.value.where == str(tmp_path / "log")
    assert "a word of its own" in (tmp_path / "log").read_text()


def test_one_process_stays_here_and_a_launch_file_is_of_this_machine(tmp_path: Path) -> None:
    assert launch_of(TrainingSpec()) is None
    with pytest.raises(InputError, match="does not exist"):
        launch_of(TrainingSpec(launch=str(tmp_path / "absent.yaml")))
    (tmp_path / "own.yaml").write_text("num_machines: 2")
    with pytest.raises(InputError, match="started on one machine"):
        launch_of(TrainingSpec(launch=str(tmp_path / "own.yaml")))
    (tmp_path / "own.yaml").write_text("num_machines: 1")
    launch = launch_of(TrainingSpec(launch=str(tmp_path / "own.yaml")))
    assert launch is not None
    assert launch.command("module", "r.json")[1:5] == [
        "-m", "accelerate.commands.launch", "--config_file", str(tmp_path / "own.yaml")
    ]
