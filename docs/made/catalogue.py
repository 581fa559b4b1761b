"""Tables of the catalogue, and of what can be exported."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from made.blocks import code, table
from potstill.catalog import CatalogEntry
from potstill.catalog.entry import read_catalog

OURS = Path(str(files("potstill.catalog"))) / "entries.yaml"


def endpoint_table() -> str:
    """The models behind an endpoint: names, context window, price, key, licence."""
    rows = []
    for name, entry in read_catalog(OURS).items():
        if entry.endpoint is not None:
            price, day = _price(entry)
            key, terms = code(entry.api_key_env or ""), entry.license or "see vendor"
            rows.append([code(name), _aliases(entry), _tokens(entry), price, day, key, terms])
    return table(["Name", "Also", "Context window", "Price, in / out", "As of", "Key variable", "Licence"], rows)


def student_table() -> str:
    """The models with weights: names, where they come from, context window, licence."""
    rows = []
    for name, entry in read_catalog(OURS).items():
        if entry.endpoint is None:
            source = f"Python package {code(entry.package)}" if entry.package else code(str(entry.model))
            rows.append([code(name), _aliases(entry), source, _tokens(entry), entry.license or "not known"])
    return table(["Name", "Also", "Weights", "Context window", "Licence"], rows)


def gguf_families() -> str:
    """The architectures that can be exported, as a sentence has them."""
    from potstill.exporting.gguf_families import FAMILIES

    return ", ".join(code(name) for name in FAMILIES)


def _price(entry: CatalogEntry) -> tuple[str, str]:
    """Dollars a million tokens, and the day they were looked up."""
    price = entry.price
    if price is None:
        return "not known", ""
    # Hard spaces: a price stays on one line.
    return f"${price.input:.2f}\N{NO-BREAK SPACE}/\N{NO-BREAK SPACE}${price.output:.2f}", code(str(price.date or ""))


def _aliases(entry: CatalogEntry) -> str:
    """Other names; hub ids are names anyway."""
    return ", ".join(code(alias) for alias in entry.aliases if "/" not in alias)


def _tokens(entry: CatalogEntry) -> str:
    return "" if entry.context_window is None else f"{entry.context_window:,}"
