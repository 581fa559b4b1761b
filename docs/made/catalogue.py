"""Tables of the catalogue, and of what can be exported."""

from __future__ import annotations

from made.blocks import code, table

from potstill.catalog import CatalogEntry
from potstill.catalog.entry import read_catalog
from potstill.catalog.lookup import _OURS


def endpoint_table() -> str:
    """The models behind an endpoint: name, served by, context window, price, licence."""
    rows = []
    for name, entry in read_catalog(_OURS).items():
        if entry.endpoint is None:
            continue
        price = entry.price
        told = "not known" if price is None else f"${price.input:g} / ${price.output:g}" + (f" ({price.date})" if price.date else "")
        rows.append([code(name), _host(entry), _tokens(entry), told, code(entry.api_key_env or ""), entry.license or "see vendor"])
    return table(["Name", "Served by", "Context window", "Price, in / out", "Key variable", "Licence"], rows)


def student_table() -> str:
    """The models with weights: name, where they come from, context window, licence."""
    rows = []
    for name, entry in read_catalog(_OURS).items():
        if entry.endpoint is None:
            source = f"Python package {code(entry.package)}" if entry.package else code(str(entry.model))
            rows.append([code(name), source, _tokens(entry), entry.license or "not known"])
    return table(["Name", "Weights", "Context window", "Licence"], rows)


def gguf_families() -> str:
    """The architectures that can be exported, as a sentence has them."""
    from potstill.exporting.gguf_families import FAMILIES

    return ", ".join(code(name) for name in FAMILIES)


def _host(entry: CatalogEntry) -> str:
    return str(entry.endpoint).removeprefix("https://").partition("/")[0]


def _tokens(entry: CatalogEntry) -> str:
    return "" if entry.context_window is None else f"{entry.context_window:,}"
