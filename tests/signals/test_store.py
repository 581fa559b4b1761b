"""What was captured stays: through kills, beside other processes, in any order; and what is damaged or another's is named."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from potstill.errors import CorruptFileError, InputError, MachineError, RunLockedError
from potstill.signals import store as store_module
from potstill.signals.counts import CountsEncoding
from potstill.signals.header import StoreHeader
from potstill.signals.keys import TextKeys
from potstill.signals.packing import Body
from potstill.signals.records import HEAD_BYTES, encode
from potstill.signals.signal import Counts, TopK
from potstill.signals.source import TargetBatch
from potstill.signals.store import SignalStore, StoredSignals
from signals.stores import HEADER, VOCABULARY, key_of, record_of

COUNT = 40
KEYS = [key_of(number) for number in range(COUNT)]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "signals"
    with SignalStore(folder, HEADER, writable=True) as store:
        for start in range(0, COUNT, 8):
            store.append([record_of(number) for number in range(start, start + 8)])
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "signals"))


def expected(number: int, temperature: float = 1.0) -> TopK:
    record = record_of(number)
    decoded = HEADER.encoding.decode([Body(record.positions, record.content)], temperature)
    assert isinstance(decoded, TopK)
    return decoded


def same(ours: object, theirs: TopK) -> bool:
    assert isinstance(ours, TopK)
    width = theirs.ids.shape[1]
    assert ours.drawn is not None
    assert theirs.drawn is not None
    return torch.equal(ours.ids[:, :width], theirs.ids) and torch.equal(ours.logprobs[:, :width], theirs.logprobs) and (
        torch.equal(ours.log_tail, theirs.log_tail) and torch.equal(ours.drawn.log_p, theirs.drawn.log_p)
        and torch.equal(spread(ours.drawn), spread(theirs.drawn))
    )


def spread(drawn: Counts) -> torch.Tensor:
    return torch.zeros(len(drawn), VOCABULARY).scatter_add(1, drawn.ids, drawn.shares)


def test_any_order_gives_each_text_its_own_signals(folder: Path) -> None:
    """Two known systems align by step number, and train on the wrong rows once the order changes."""
    order = random.Random(3).sample(range(COUNT), COUNT)
    with SignalStore(folder) as store:
        source = StoredSignals(store)
        for temperature in (1.0, 2.0):
            for start in range(0, COUNT, 8):
                numbers = order[start : start + 8]
                sizes = [record_of(number).positions for number in numbers]
                positions = torch.arange(sum(sizes))
                batch = TargetBatch(positions[None], positions, tuple(key_of(number) for number in numbers))
                told, at = source.signal(batch, temperature), 0
                for number, size in zip(numbers, sizes, strict=True):
                    assert same(told.tile(at, at + size), expected(number, temperature))
                    at += size


def test_a_text_with_other_positions_is_no_match(folder: Path) -> None:
    with SignalStore(folder) as store, pytest.raises(ValueError, match="signals of 1 positions, but a batch of 2"):
        StoredSignals(store).signal(TargetBatch(torch.zeros(1, 2), torch.arange(2), (KEYS[0],)), 1.0)


def test_missing_texts_are_told_once_each_and_refused(folder: Path) -> None:
    with SignalStore(folder, HEADER) as store:
        assert store.missing([key_of(99), KEYS[0], key_of(77), key_of(99)]) == [key_of(99), key_of(77)]
        with pytest.raises(InputError) as caught:
            store.read([KEYS[0], key_of(99), key_of(99)], 1.0)
        assert caught.value.found == "1 of 2 texts"
        with pytest.raises(InputError) as caught:
            store.read(KEYS[:2], 0.5)
        assert caught.value.expected == "1 or 2"
        with pytest.raises(InputError, match="no hidden states"):
            store.read_hidden(KEYS)


def test_a_key_that_shares_half_with_another_is_missing(folder: Path) -> None:
    with SignalStore(folder) as store:
        assert store.missing([KEYS[0][:16] + "0" * 16]) == [KEYS[0][:16] + "0" * 16]


@pytest.mark.parametrize(("other", "named"), [
    (replace(HEADER, keys=TextKeys({"gguf": "cd" * 16}, "{{ messages }}")), "teacher gguf"),
    (replace(HEADER, keys=TextKeys({"gguf": "ab" * 16}, "other")), "template"),
    (replace(HEADER, encoding=replace(HEADER.encoding, top=9)), "encoding top"),
    (replace(HEADER, encoding=CountsEncoding(300)), "encoding name"),
])
def test_a_store_of_another_teacher_or_form_is_never_mixed_in(folder: Path, other: StoreHeader, named: str) -> None:
    assert other.folder_name != HEADER.folder_name
    for writable in (False, True):
        with pytest.raises(InputError) as caught:
            SignalStore(folder, other, writable=writable)
        assert caught.value.what == f"these signals were captured with another {named}"
    SignalStore(folder, HEADER, writable=True).close()


def test_a_file_of_another_store_is_never_mixed_in(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    header = replace(HEADER, encoding=replace(HEADER.encoding, top=9))
    with SignalStore(other, header, writable=True) as store:
        store.append([record_of(1, header)])
    shutil.copy(other / "000001.sig", folder / "000002.sig")
    with pytest.raises(InputError, match="signals of another store"):
        SignalStore(folder)


def test_where_nothing_was_captured(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no captured signals"):
        SignalStore(tmp_path / "none", HEADER)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(CorruptFileError, match=r"header.*damaged"):
        SignalStore(tmp_path, HEADER)
    (tmp_path / "store.json").write_text('{"format": 1}')
    with pytest.raises(InputError, match="another version"):
        SignalStore(tmp_path, HEADER)


@pytest.mark.parametrize("lost", [1, 30, 400])
def test_a_torn_end_is_dropped_with_what_was_written_together(folder: Path, lost: int) -> None:
    """Texts of a batch count together, however much of the last batch is there."""
    file = folder / "000001.sig"
    os.truncate(file, file.stat().st_size - lost)
    for _ in range(2):
        with SignalStore(folder) as reader:
            assert reader.missing(KEYS) == KEYS[32:]
    with SignalStore(folder, HEADER, writable=True) as store:
        assert store.missing(KEYS) == KEYS[32:]
        store.append([record_of(number) for number in range(32, COUNT)])
        assert store.missing(KEYS) == []
    with SignalStore(folder) as reader:
        assert same(reader.read([KEYS[39]], 1.0), expected(39))


def test_a_file_of_which_only_the_first_bytes_were_written(tmp_path: Path) -> None:
    SignalStore(tmp_path, HEADER, writable=True).close()
    os.truncate(tmp_path / "000001.sig", 5)
    assert len(SignalStore(tmp_path)) == 0
    with SignalStore(tmp_path, HEADER, writable=True) as store:
        store.append([record_of(0)])
    assert len(SignalStore(tmp_path)) == 1


@pytest.mark.parametrize("into", [5, HEAD_BYTES + 2], ids=["in its head", "in its body"])
def test_a_damaged_byte_is_named_by_file_and_place(folder: Path, into: int) -> None:
    file = folder / "000001.sig"
    content = bytearray(file.read_bytes())
    place = 24 + len(encode([record_of(number) for number in range(2)]))
    content[place + into] ^= 0x10
    file.write_bytes(content)
    with pytest.raises(CorruptFileError) as caught:
        SignalStore(folder)
    assert caught.value.where == f"{file}, byte {place}"
    assert "delete it" in (caught.value.hint or "")
    file.unlink()
    with SignalStore(folder, HEADER, writable=True) as store:
        assert store.missing(KEYS) == KEYS


def test_many_files_with_and_without_their_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SEGMENT_BYTES", 3000)
    with SignalStore(folder, HEADER, writable=True) as store:
        for number in range(COUNT, 2 * COUNT):
            store.append([record_of(number)])
    keys = [key_of(number) for number in range(2 * COUNT)]
    files, indexes = (sorted(folder.glob(f"*.{kind}")) for kind in ("sig", "idx"))
    assert len(files) > 2
    assert [path.stem for path in indexes] == [path.stem for path in files[:-1]]
    indexes[0].unlink()
    indexes[1].write_bytes(indexes[1].read_bytes()[:-1] + b"\xff")
    with SignalStore(folder) as store:
        assert store.missing(keys) == []
        assert same(store.read([keys[0]], 2.0), expected(0, 2.0))
    assert not indexes[0].exists()
    SignalStore(folder, HEADER, writable=True).close()
    assert indexes[0].exists()


def test_a_record_damaged_where_an_index_was_trusted_is_found_by_reading_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "SEGMENT_BYTES", 1000)
    with SignalStore(folder, HEADER, writable=True) as store:
        store.append([record_of(COUNT)])
    content = bytearray((folder / "000001.sig").read_bytes())
    content[24 + HEAD_BYTES] ^= 1
    (folder / "000001.sig").write_bytes(content)
    with SignalStore(folder) as store:
        assert same(store.read([KEYS[1]], 1.0), expected(1))
        with pytest.raises(CorruptFileError, match="damaged"):
            store.read([KEYS[0]], 1.0)


def test_one_writes_and_others_read_meanwhile(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SEGMENT_BYTES", 6000)
    with SignalStore(folder, HEADER, writable=True) as writer, SignalStore(folder) as one, SignalStore(folder) as two:
        with pytest.raises(RunLockedError, match="another process is working with the store"):
            SignalStore(folder, HEADER, writable=True)
        for number in range(COUNT, 2 * COUNT):
            writer.append([record_of(number)])
            if number % 7 == 0:
                for store in (writer, one, two):
                    assert same(store.read([key_of(number), KEYS[0]], 1.0).tile(0, 1 + number % 9), expected(number))
        with pytest.raises(ValueError, match="opened for reading"):
            one.append([record_of(99)])


def test_a_full_disk_leaves_the_store_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object, content: bytes) -> None:
        file.write(content[: len(content) // 2])  # type: ignore[attr-defined]
        raise OSError(28, "No space left on device")

    with SignalStore(folder, HEADER, writable=True) as store:
        records = [record_of(number) for number in range(COUNT, COUNT + 5)]
        with monkeypatch.context() as patch:
            patch.setattr(store_module, "_write_all", full)
            with pytest.raises(MachineError) as caught:
                store.append(records)
        assert caught.value.found == "No space left on device"
        store.append([record_of(COUNT)])
    assert len(SignalStore(folder)) == COUNT + 1


def test_a_writer_killed_at_any_moment_loses_nothing_it_kept(tmp_path: Path) -> None:
    kept = 0
    for round_ in range(2):
        command = [sys.executable, str(Path(__file__).with_name("stores.py")), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(20 + 30 * round_):
                kept = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            kept = max([kept, *map(int, process.stdout.read().split())])
        with SignalStore(tmp_path) as store:
            assert len(store) >= kept
            assert len(store) % 3 == 0
            assert store.missing([key_of(number) for number in range(len(store))]) == []
            last = len(store) - 1
            assert same(store.read([key_of(last)], 1.0), expected(last))
