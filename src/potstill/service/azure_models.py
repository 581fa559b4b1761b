"""Models, addresses and keys as Azure names them, in our names and back.

Azure knows a model by its id in a registry (azureml://registries/REGISTRY/models/NAME/versions/3); the catalogue has these ids,
without their versions, among the other names of a model. An endpoint of Azure's ends in /chat/completions, ours before it. A
connection holds its key in clear text; a job of ours names the environment variable that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from urllib.parse import urlsplit, urlunsplit

from potstill.catalog import CatalogEntry, entries
from potstill.errors import InputError, ModelNotFoundError
from potstill.spec import StudentSpec

_REGISTRY_ID = re.compile(r"(?P<model>azureml://registries/[^/]+/models/(?P<name>[^/]+))(/(versions|labels)/(?P<version>[^/]+))?")
_ASSET = re.compile(r"(?P<name>[\w.-]+)(?P<version>[:@][\w.-]+)?")
_CHAT = "/chat/completions"
_PLACEHOLDER = re.compile(r"\$\{([A-Za-z_]\w*)\}")


def model_name(identifier: str, field: str) -> tuple[str, str | None]:
    """What a job of ours calls the model that Azure calls `identifier`, and a note where something of it is lost.

    Raises:
        InputError: it is an asset of an Azure workspace, which cannot be reached from here.
        ModelNotFoundError: it is a model of a registry that the catalogue does not know.
    """
    registered = _REGISTRY_ID.fullmatch(identifier)
    if registered is not None:
        name = _catalogue_name(registered["model"], registered["name"], field)
        if registered["version"] in (None, "latest"):
            return name, None
        return name, f"{field}: '{name}' of the catalogue, in the hub's version, not Azure's version {registered['version']}"
    if not identifier.startswith("azureml:"):
        return _without_scheme(identifier), None
    asset = _ASSET.fullmatch(identifier.removeprefix("azureml:"))
    if asset is None or identifier.endswith(".gguf"):
        return local_path(identifier, field), None
    known = _find(asset["name"])
    if known is None:
        raise InputError(
            f"'{field}' names a model of an Azure workspace, which cannot be reached from here", found=identifier,
            expected="a model of an Azure registry, a name of the catalogue, a hub id or a folder",
            hint="download the model and give its folder",
        )
    return known[0], f"{field}: '{known[0]}' of the catalogue, not the workspace's {identifier}"


def _catalogue_name(identifier: str, name: str, field: str) -> str:
    known = _find(identifier) or _find(name)
    if known is None:
        raise ModelNotFoundError(
            f"'{field}' names a model that the catalogue does not know", found=identifier,
            expected="one of " + ", ".join(alias.rpartition("/")[2] for _, _, alias in _registered()),
            hint="or give its hub id (org/name), or a folder that holds it",
        )
    return known[0]


def registry_id(student: StudentSpec) -> str | None:
    """Azure's id of a student, its newest version; None where no registry of Azure is known to have it."""
    known = _find(student.model) if student.model is not None else None
    ids = [alias for _, entry, alias in _registered() if known is not None and entry is known[1]]
    return f"{ids[0]}/labels/latest" if ids else None


def _registered() -> Iterator[tuple[str, CatalogEntry, str]]:
    """Each model that a registry of Azure has: its name, its entry and its id without a version."""
    for name, entry in entries().items():
        for alias in entry.aliases:
            if _REGISTRY_ID.fullmatch(alias) and entry.endpoint is None:
                yield name, entry, alias


def _find(name: str) -> tuple[str, CatalogEntry] | None:
    wanted = name.casefold()
    for key, entry in entries().items():
        if wanted in (key.casefold(), *(alias.casefold() for alias in entry.aliases)):
            return key, entry
    return None


def local_path(text: str, field: str) -> str:
    """A file's path from what Azure accepts for one; the SDK writes even paths of this machine as azureml:PATH.

    Raises:
        InputError: it lies in a workspace, a datastore or on the web.
    """
    rest = text if text.startswith("azureml://") else text.removeprefix("azureml:")
    asset = _ASSET.fullmatch(rest) if text.startswith("azureml:") else None
    registered = asset is not None and (asset["version"] or not PurePath(rest).suffix)
    if registered or re.match(r"(azureml|https?|wasbs?|abfss?):", rest):
        raise InputError(
            f"'{field}' lies where it cannot be reached from here", found=text, expected="a file of this machine",
            hint="download it and give the file's path",
        )
    return _without_scheme(rest)


def _without_scheme(text: str) -> str:
    return re.sub(r"^file:(//)?", "", text)


def base_url(address: str) -> str:
    """Our form of an endpoint's address: what stands before /chat/completions. Azure adds /v1 to a host alone."""
    parts = urlsplit(address)
    path = parts.path.rstrip("/")
    path = path.removesuffix(_CHAT) if path.endswith(_CHAT) else path or "/v1"
    return urlunsplit(parts._replace(path=path))


def chat_url(base: str) -> str:
    """Azure's form of an endpoint's address, which it asks as it stands."""
    parts = urlsplit(base)
    path = parts.path.rstrip("/")
    return urlunsplit(parts._replace(path=path if path.endswith(_CHAT) else path + _CHAT))


def key_variable(connection: str) -> str:
    """The environment variable for the key of a connection: LLAMA_405B_API_KEY for llama-405b."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", connection).strip("_").upper()
    return f"{name if name[:1].isalpha() else f'TEACHER_{name}'.rstrip('_')}_API_KEY"


def placeholder(variable: str) -> str:
    """What stands in a description in place of a key."""
    return f"${{{variable}}}"


def named_variable(text: str) -> str | None:
    """The variable that a placeholder names; None where the text is no placeholder but a key."""
    found = _PLACEHOLDER.fullmatch(text.strip())
    return found[1] if found else None
