"""Tables of the catalogue, and of what can be exported."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from made.blocks import code, table
from potstill.catalog import CatalogEntry
from potstill.catalog.entry import read_catalog

OURS = Path(str(files("potstill.catalog"))) / "entries.yaml"


def endpoint_table() -> str:
    """The models behind an endpoint: name, served by, context window, price, licence."""
    rows = []
    for name, entry in read_catalog(OURS).items():
        if entry.endpoint is None:
            continue
        key, terms = code(entry.api_key_env or ""), entry.license or "see vendor"
        rows.append([code(name), _host(entry), _tokens(entry), _price(entry), key, terms])
    return table(["Name", "Served by", "Context window", "Price, in / out", "Key variable", "Licence"], rows)


def student_table() -> str:
    """The models with weights: name, where they come from, context window, licence."""
    rows = []
    for name, entry in read_catalog(OURS).items():
        if entry.endpoint is None:
            source = f"Python package {code(entry.package)}" if entry.package else code(str(entry.model))
            rows.append([code(name), source, _tokens(entry), entry.license or "not known"])
    return table(["Name", "Weights", "Context window", "Licence"], rows)


def gguf_families() -> str:
    """The architectures that can be exported, as a sentence has them."""
    from potstill.exporting.gguf_families import FAMILIES

    return ", ".join(code(name) for name in FAMILIES)


def _price(entry: CatalogEntry) -> str:
    price = entry.price
    if price is None:
        return "not known"
    return f"${price.input:.2f} / ${price.output:.2f}" + (f" ({price.date})" if price.date else "")


def _host(entry: CatalogEntry) -> str:
    return str(entry.endpoint).removeprefix("https://").partition("/")[0]


def _tokens(entry: CatalogEntry) -> str:
    return "" if entry.context_window is None else f"{entry.context_window:,}"
