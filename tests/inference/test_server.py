"""A server that is started for a model: what it is told, that it is waited for, and that it goes however the run goes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from potstill.catalog import ResolvedModel, resolve
from potstill.errors import EndpointError, InputError, MachineError
from potstill.inference import Client, Journal, model_identity, open_engine, server
from potstill.inference.protocol import Request
from potstill.inference.server import ServedEngine
from potstill.spec import ModelSpec
from stand_in_server import write_program

pytestmark = pytest.mark.skipif(os.name == "nt", reason="neither vLLM nor SGLang runs there")

AskFor = Callable[..., Request]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder, as far as it is looked at before a server loads it."""
    folder = tmp_path / "tiny-model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 4096}')
    return folder


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both servers on PATH, and quick to look after."""
    (tmp_path / "bin").mkdir()
    for name in ("vllm", "sglang"):
        write_program(tmp_path / "bin", name)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN_NOTE", str(tmp_path / "note.json"))
    monkeypatch.setattr(server, "POLL_S", 0.05)


def model(folder: Path, engine: str = "vllm", **keys: object) -> ResolvedModel:
    return resolve(ModelSpec(path=str(folder), engine=engine, **keys))  # type: ignore[arg-type]


def note(tmp_path: Path) -> dict[str, object]:
    told: dict[str, object] = json.loads((tmp_path / "note.json").read_text())
    return told


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 20
    while not file.exists() or not file.stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_gone(pid: object, *, within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not psutil.pid_exists(int(str(pid))) or psutil.Process(int(str(pid))).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


async def test_a_server_is_started_asked_and_stopped(ask_for: AskFor, folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    chosen = model(folder, server_args=["--tensor-parallel-size", 2])
    engine = open_engine(chosen, context=1024, folder=tmp_path / "logs", say=said.append)
    assert not (tmp_path / "note.json").exists()
    assert engine.capabilities.logprobs == "raw"
    replies = await asyncio.gather(*(engine.generate(ask_for(text)) for text in ("hi", "ho")))
    await engine.aclose()
    assert [engine.parse(raw).text for raw in replies] == ["HI", "HO"]
    arguments = note(tmp_path)["arguments"]
    assert arguments[:2] == ["serve", str(folder)]  # type: ignore[index]
    told = " ".join(map(str, arguments))  # type: ignore[call-overload]
    assert "--served-model-name tiny-model" in told
    assert "--max-model-len 1024" in told
    assert told.endswith("--tensor-parallel-size 2")
    assert is_gone(note(tmp_path)["pid"])
    assert "loading the weights" in (tmp_path / "logs" / "vllm.log").read_text()
    assert "ready" in said[-1]


async def test_the_journal_outlives_the_server_which_is_not_started_for_what_is_known(
    ask_for: AskFor, folder: Path, tmp_path: Path
) -> None:
    chosen = model(folder, "sglang")
    assert model_identity(chosen) == model_identity(resolve(ModelSpec(path=str(folder))))
    for time_asked in range(2):
        engine = open_engine(chosen, folder=tmp_path)
        assert engine.capabilities.logprobs == "tempered"
        with Journal(tmp_path / "journal") as journal:
            answer = await Client(engine, journal, concurrency=2).ask(ask_for("hi"))
        await engine.aclose()
        assert answer.reply is not None
        assert (answer.reply.text, answer.from_journal) == ("HI", time_asked == 1)
        assert (tmp_path / "note.json").exists() == (time_asked == 0)
        (tmp_path / "note.json").unlink(missing_ok=True)


async def test_a_server_that_dies_at_the_start_is_told_with_its_last_words(
    ask_for: AskFor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "dies")
    engine = open_engine(model(folder), folder=tmp_path)
    with pytest.raises(MachineError, match="ended before it was ready") as raised:
        await engine.generate(ask_for("hi"))
    await engine.aclose()
    assert "CUDA out of memory" in str(raised.value.found)
    assert raised.value.where == str(tmp_path / "vllm.log")


async def test_a_server_that_is_never_ready_is_given_up_and_stopped(
    ask_for: AskFor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "hangs")
    monkeypatch.setattr(server, "START_WITHIN_S", 1.0)
    monkeypatch.setattr(server, "TELL_EVERY_S", 0.3)
    said: list[str] = []
    engine = open_engine(model(folder), folder=tmp_path, say=said.append)
    with pytest.raises(MachineError, match="was not ready within 1 s"):
        await engine.generate(ask_for("hi"))
    await engine.aclose()
    assert any("not ready after" in text for text in said)
    living = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    assert not [child for child in living if str(tmp_path) in " ".join(child.cmdline())]


async def test_a_server_that_does_not_know_the_model_ends_the_job(
    ask_for: AskFor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "refuses")
    engine = open_engine(model(folder), folder=tmp_path)
    with Journal(tmp_path / "journal") as journal, pytest.raises(EndpointError, match="refuses every request"):
        await Client(engine, journal, concurrency=1).ask(ask_for("hi"))
    await engine.aclose()


async def test_a_server_that_ends_while_it_is_asked_is_told_at_once(
    ask_for: AskFor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "breaks")
    engine = open_engine(model(folder), folder=tmp_path)
    with pytest.raises(MachineError, match="ended while it was asked") as raised:
        await engine.generate(ask_for("hi"))
    await engine.aclose()
    assert "device-side assert" in str(raised.value.found)


async def test_waiting_can_be_cancelled(
    ask_for: AskFor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN", "hangs")
    engine = open_engine(model(folder), folder=tmp_path)
    asking = asyncio.create_task(engine.generate(ask_for("hi")))
    await asyncio.to_thread(wait_for, tmp_path / "note.json")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await engine.aclose()
    assert is_gone(note(tmp_path)["pid"])


_KILLABLE = """
import asyncio, sys
from pathlib import Path
from potstill.catalog import resolve
from potstill.inference import open_engine
from potstill.inference.protocol import Request, Sampling
from potstill.rows import Message
from potstill.spec import ModelSpec

async def main() -> None:
    engine = open_engine(resolve(ModelSpec(path=sys.argv[1], engine="vllm")), folder=Path(sys.argv[2]))
    await engine.generate(Request((Message("user", "hi"),), Sampling()))
    print("answered", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_server_does_not_outlive_a_run_that_is_killed(folder: Path, tmp_path: Path) -> None:
    run = subprocess.Popen([sys.executable, "-c", _KILLABLE, str(folder), str(tmp_path)], stdout=subprocess.PIPE)
    assert run.stdout is not None
    assert run.stdout.readline() == b"answered\n"
    pid = note(tmp_path)["pid"]
    assert not is_gone(pid, within_s=0.2)
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    assert is_gone(pid)


def test_a_program_that_is_not_there_is_wrong_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_VLLM", "no-such-program serve")
    with pytest.raises(InputError, match="is not on this machine") as raised:
        ServedEngine(model(folder))
    assert "no-such-program" in str(raised.value.found)
