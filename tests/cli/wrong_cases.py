"""Jobs with one mistake each, and what has to be said of it. Written to a folder beside good rows, they are run and checked."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MODEL = "smollm2-135m-instruct"
JOB = f"task: classification\nteacher: {MODEL}\nstudent: {MODEL}\ndata: {{train: rows.jsonl}}\n"
WORDS = ("bell", "chain", "frame", "glove", "helmet", "lamp", "pedal", "pump")
ASKED = [(f"Where is my {word} of size {size}?", "ab"[size % 2]) for word in WORDS for size in range(5)]
LINES = [json.dumps({"text": text, "label": label}) for text, label in ASKED]
ROWS = "\n".join(LINES) + "\n"
ABSENT_KEY = "POTSTILL_TEST_ABSENT_KEY"

Content = str | bytes


@dataclass(frozen=True)
class Wrong:
    """What differs from a good job, and what the error has to say and where."""

    says: str
    where: str
    job: Content = JOB
    rows: Content = ROWS
    files: Mapping[str, Content] = field(default_factory=dict)
    arguments: tuple[str, ...] = ("run", "job.yaml")
    environment: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        for name, content in {"job.yaml": self.job, "rows.jsonl": self.rows, **self.files}.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)


def teacher(model: str) -> str:
    return JOB.replace(f"teacher: {MODEL}", f"teacher: {model}")


def student(model: str) -> str:
    return JOB.replace(f"student: {MODEL}", f"student: {model}")


def data(sources: str) -> str:
    return JOB.replace("{train: rows.jsonl}", sources)


OWN_CATALOG = {"POTSTILL_CATALOG": "own.yaml"}
SECRETIVE = "{model: m, endpoint: 'https://me:hunter2@host/v1'}"
DEAD_ENDPOINT = "{model: m, endpoint: 'http://127.0.0.1:9/v1'}"
CONFIG = '{"num_hidden_layers": 4, "max_position_embeddings": 512}'


def weights(name: str = "encoder.layer.0.weight") -> bytes:
    """A safetensors file of one tensor of four weights."""
    header = json.dumps({name: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


def gguf(family: str) -> bytes:
    """A GGUF file without weights: only what it says of itself, in texts."""
    texts = {"general.architecture": family, "tokenizer.ggml.model": "llama", "tokenizer.chat_template": "{{ messages }}"}
    entries = b"".join(_text(key) + struct.pack("<I", 8) + _text(value) for key, value in texts.items())
    tensor = _text("token_embd.weight") + struct.pack("<IQIQ", 1, 4, 0, 0)
    return struct.pack("<4sIQQ", b"GGUF", 3, 1, len(texts)) + entries + tensor + bytes(64)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


TOKENIZER = json.dumps({"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})
# An encoder: whole, and of no use as a student.
BASE: Mapping[str, Content] = {
    "base/config.json": '{"model_type": "bert", "architectures": ["BertForMaskedLM"], "max_position_embeddings": 512}',
    "base/model.safetensors": weights(),
    "base/chat_template.jinja": "{{ messages[0].content }}",
    "base/tokenizer.json": TOKENIZER,
}

WRONG = {
    # the job file
    "no job file": Wrong("job file does not exist", "absent.yaml", arguments=("run", "absent.yaml")),
    "folder without a job": Wrong("job file does not exist", "job.yaml", arguments=("run", "sub"), files={"sub/x": ""}),
    "YAML syntax": Wrong("expected ',' or '}'", "job.yaml, line 6", job=JOB + "training: {batch_size: 2\n"),
    "tab in YAML": Wrong("'\\t'", "job.yaml, line 6", job=JOB + "training:\n\tbatch_size: 2\n"),
    "control character": Wrong("U+0000", "job.yaml, line 5", job=JOB + "# \0\n"),
    "key given twice": Wrong("'task' a second time", "job.yaml, line 5", job=JOB + "task: nli\n"),
    "impossible date": Wrong("month must be", "job.yaml", job=JOB + "name: 2026-13-01\n"),
    "no mapping": Wrong("holds no mapping", "job.yaml", job="- task\n"),
    "empty job": Wrong("holds no mapping", "job.yaml", job=""),
    "job not UTF-8": Wrong("not UTF-8", "job.yaml, line 5", job=(JOB + "# café\n").encode("latin-1")),
    # keys and values
    "required keys": Wrong("'teacher' is missing", "job.yaml", job="task: nli\n"),
    "unknown key": Wrong("unknown key 'colour'", "job.yaml", job=JOB + "colour: red\n"),
    "misspelt key": Wrong("'training.learning_rte'", "job.yaml", job=JOB + "training: {learning_rte: 1.0e-5}\n"),
    "wrong type": Wrong("a whole number", "job.yaml", job=JOB + "training: {batch_size: many}\n"),
    "out of bounds": Wrong("less than or equal to 2", "job.yaml", job=JOB + "generation: {temperature: 3}\n"),
    "section that is none": Wrong("such as data: {train", "job.yaml", job=data("rows.jsonl")),
    "unknown task": Wrong("one of nli, conversation", "job.yaml", job=JOB.replace("classification", "poetry")),
    "name that is no name": Wrong("letters, digits", "job.yaml", job=JOB + "name: a/b\n"),
    "unknown format": Wrong("'gguf:q8_0'", "job.yaml", job=JOB + "export: [gguf:q3_k]\n"),
    "unknown metric": Wrong("sparkle", "evaluation.metrics", job=JOB + "evaluation: {metrics: [sparkle]}\n"),
    "unknown method": Wrong("'sft' or 'kd'", "job.yaml", job=JOB + "training: {method: rl}\n"),
    "unknown loss": Wrong("'training.loss.kl'", "job.yaml", job=JOB + "training: {loss: {kl: 1}}\n"),
    "loss without its method": Wrong("needs method: kd", "job.yaml", job=JOB + "training: {loss: {forward_kl: 1}}\n"),
    "budget without a price": Wrong(
        "needs the teacher's price", "generation.budget_usd", job=teacher(DEAD_ENDPOINT) + "generation: {budget_usd: 5}\n"
    ),
    "teacher score without gold": Wrong(
        "scored by gold answers", "generation.min_teacher_score",
        rows=ROWS.replace('"text"', '"prompt"').replace("label", "kind"),
        job=JOB.replace("classification", "text") + "generation: {min_teacher_score: 0.5}\n",
    ),
    "no budget at all": Wrong("'generation.budget_usd'", "job.yaml", job=JOB + "generation: {budget_usd: 0}\n"),
    "teacher that is none": Wrong("a mapping or a list of them", "job.yaml, line 2", job=teacher("5")),
    "misspelt key of one of several teachers": Wrong(
        "'teacher.1.wheight'", "job.yaml, line 2", job=teacher("[a, {model: b, wheight: 2}]")
    ),
    "teachers that cannot be told apart": Wrong("give each a 'name'", "job.yaml, line 2", job=teacher("[a/x, a-x]")),
    "one teacher twice": Wrong("'a' stands in the list twice", "job.yaml, line 2", job=teacher("[a, a]")),
    "one of several teachers unknown": Wrong(
        "'smollm2-135m-instrukt'", "'teacher'", job=teacher(f"[{MODEL}, smollm2-135m-instrukt]")
    ),
    "strategy for one teacher": Wrong("needs a list of teachers", "job.yaml", job=JOB + "generation: {strategy: best}\n"),
    "weight without a mix": Wrong(
        "means something under strategy: mix", "job.yaml",
        job=teacher("[a, {model: b, weight: 2}]") + "generation: {strategy: vote}\n",
    ),
    "samples that are all the same": Wrong(
        "at temperature 0", "job.yaml", job=JOB + "generation: {samples: 2, temperature: 0}\n"
    ),
    "nothing to choose from": Wrong("needs samples", "job.yaml", job=JOB + "generation: {select: vote}\n"),
    "best that cannot be told": Wrong(
        "cannot be told", "generation.select",
        job=JOB.replace("classification", "text") + "generation: {select: best, samples: 2}\n",
        rows='{"prompt": "Write."}\n{"prompt": "Read."}\n' + "".join(f'{{"prompt": "Count to {n}."}}\n' for n in range(40)),
    ),
    "password in the job": Wrong("holds no password", "job.yaml", job=teacher(SECRETIVE)),
    "port that is none": Wrong("Port out of range", "job.yaml, line 2", job=teacher("{model: m, endpoint: 'http://h:99999/v1'}")),
    "no host": Wrong("names a host", "job.yaml, line 2", job=teacher("{model: m, endpoint: 'http:///v1'}")),
    "empty loss": Wrong("at least 1 item", "job.yaml, line 5", job=JOB + "training: {loss: {}}\n"),
    "job is a device": Wrong("holds no mapping", "/dev/null", arguments=("run", "/dev/null")),
    # data
    "no data file": Wrong("data file does not exist", "absent.jsonl", job=data("{train: absent.jsonl}")),
    "data is a folder": Wrong("folder, not a data file", "sub", job=data("{train: ./sub}"), files={"sub/x": ""}),
    "data of unknown kind": Wrong(".docx", "rows.docx", job=data("{train: rows.docx}"), files={"rows.docx": ""}),
    "bad JSON line": Wrong("not JSON", "rows.jsonl, line 41", rows=ROWS + '{"text": "x",\n'),
    "row not UTF-8": Wrong("not UTF-8", "rows.jsonl, line 41", rows=(ROWS + '{"text": "é"}').encode("latin-1")),
    "fields of another task": Wrong("premise", "rows.jsonl, line 1", job=JOB.replace("classification", "nli")),
    "roles out of order": Wrong(
        "roles take turns", "rows.jsonl, line 41", rows=ROWS + '{"messages": [{"role": "assistant", "content": "x"}]}\n'
    ),
    "no rows": Wrong("holds no rows", "rows.jsonl", rows=""),
    "too few rows": Wrong("too few rows", "data.train", rows="\n".join(LINES[:20])),
    "compressed data": Wrong("compressed", "rows.jsonl, line 1", rows=gzip.compress(ROWS.encode())),
    "binary data": Wrong("not UTF-8", "rows.jsonl, line 1", rows=b"\xff\x00" * 400),
    "list in a jsonl file": Wrong("name it .json", "rows.jsonl, line 1", rows=f"[{', '.join(LINES)}]"),
    "lines in a json file": Wrong("name it .jsonl", "r.json, line 2", job=data("{train: r.json}"), files={"r.json": ROWS}),
    "json that is no list": Wrong("no list of rows", "r.json", job=data("{train: r.json}"), files={"r.json": '"x"'}),
    "csv without its column": Wrong(
        "the fields label, txt", "r.csv, line 2", job=data("{train: r.csv}"), files={"r.csv": "txt,label\n" + "a,b\n" * 40}
    ),
    "csv without labels": Wrong(
        "name no labels", "'data'", job=data("{train: r.csv}"),
        files={"r.csv": "text,lbl\n" + "".join(f"{text},a\n" for text, _ in ASKED)},
    ),
    "no parquet": Wrong("not Parquet", "r.parquet", job=data("{train: r.parquet}"), files={"r.parquet": ROWS}),
    "one label": Wrong("the same label", "data.train", rows=ROWS.replace('"label": "b"', '"label": "a"')),
    "label of another set": Wrong(
        "one of meta.labels: a, b", "rows.jsonl, line 41",
        rows=ROWS + '{"text": "Who?", "label": "c", "meta": {"labels": ["a", "b"]}}',
    ),
    "empty text": Wrong("'text' is empty", "rows.jsonl, line 41", rows=ROWS + '{"text": " ", "label": "a"}'),
    "id given twice": Wrong(
        "stands for another row", "rows.jsonl, line 42",
        rows=ROWS + '{"id": "x", "text": "Who?", "label": "a"}\n{"id": "x", "text": "Why?", "label": "b"}',
    ),
    "test is train": Wrong("as train and as test", "data.test", job=data("{train: rows.jsonl, test: rows.jsonl}")),
    "test is validation": Wrong(
        "as validation and as test", "data.test", files={"v.jsonl": ROWS},
        job=data("{train: rows.jsonl, validation: v.jsonl, test: ./v.jsonl}"),
    ),
    "test holds the train rows": Wrong(
        "are in validation or test too", "data.train", job=data("{train: rows.jsonl, test: t.jsonl}"), files={"t.jsonl": ROWS}
    ),
    "rows too long": Wrong("longer than the student", "training.max_length", job=JOB + "training: {max_length: 16}\n"),
    # models
    "unknown teacher": Wrong("did you mean smollm2-135m-instruct", "'teacher'", job=teacher("smollm2-135m-instrukt")),
    "unknown student": Wrong("no model is called 'phi'", "'student'", job=student("phi")),
    "no key": Wrong(ABSENT_KEY, ABSENT_KEY, job=teacher(DEAD_ENDPOINT.replace("}", f", api_key_env: {ABSENT_KEY}}}"))),
    "student behind an endpoint": Wrong("model with weights", "'student'", job=student(DEAD_ENDPOINT)),
    "student without template": Wrong(
        "base has no chat template", "'student'", job=student("./base"),
        files={"base/config.json": CONFIG, "base/model.safetensors": ""},
    ),
    "student without weights": Wrong(
        "no weights", "base", job=student("./base"), files={"base/config.json": CONFIG, "base/chat_template.jinja": "x"}
    ),
    "student that is no GGUF": Wrong("not a GGUF file", "fake.gguf", job=student("fake.gguf"), files={"fake.gguf": "x" * 64}),
    "student that is no model": Wrong("not a model", "rows.jsonl", job=student("./rows.jsonl")),
    "weights without a header": Wrong(
        "no readable header", "model.safetensors", job=student("./base"), files={**BASE, "base/model.safetensors": "x"}
    ),
    "weights cut off": Wrong(
        "was cut off", "model.safetensors", job=student("./base"), files={**BASE, "base/model.safetensors": weights()[:-1]}
    ),
    "config without model_type": Wrong(
        "no model_type", "config.json", job=student("./base"), files={**BASE, "base/config.json": CONFIG}
    ),
    "config that is no JSON": Wrong("not JSON", "config.json", job=student("./base"), files={**BASE, "base/config.json": "{"}),
    "no tokenizer": Wrong(
        "no tokenizer", "base", job=student("./base"),
        files={name: content for name, content in BASE.items() if "tokenizer" not in name},
    ),
    "tokenizer that is none": Wrong(
        "cannot be read", "tokenizer.json", job=student("./base"), files={**BASE, "base/tokenizer.json": "{}"}
    ),
    "template that is no Jinja": Wrong(
        "not valid Jinja", "line 1 of the template", job=student("./base"),
        files={**BASE, "base/chat_template.jinja": "{% if %}"},
    ),
    "student that cannot be exported": Wrong("BertForMaskedLM", "architectures", job=student("./base"), files=BASE),
    "layers that cannot be dropped": Wrong(
        "cannot be dropped", "student.shrink", files=BASE, job=student("{path: base, shrink: {layers: 2}}")
    ),
    "GGUF of another kind": Wrong("mamba", "m.gguf", job=student("m.gguf"), files={"m.gguf": gguf("mamba")}),
    "GGUF cut off": Wrong("was cut off", "m.gguf", job=teacher("m.gguf"), files={"m.gguf": gguf("llama")[:-64]}),
    "more layers than there are": Wrong(
        "1..30", "student.shrink.layers", job=student(f"{{model: {MODEL}, shrink: {{layers: 31}}}}")
    ),
    "wrong catalogue": Wrong("'mine': an endpoint starts", "own.yaml", environment=OWN_CATALOG,
                             files={"own.yaml": "mine: {model: m, endpoint: ftp://host}\n"}),
    "catalogue not UTF-8": Wrong("not UTF-8", "own.yaml, line 1", environment=OWN_CATALOG, files={"own.yaml": b"\xe9: 1\n"}),
    "no catalogue": Wrong("catalogue file cannot be read", "own.yaml", environment=OWN_CATALOG),
    # arguments
    "unknown stage": Wrong("evalaute", "--until", arguments=("run", "job.yaml", "--until", "evalaute")),
    "run folders in a file": Wrong("has to be", "rows.jsonl", arguments=("run", "job.yaml", "--runs", "rows.jsonl")),
}
