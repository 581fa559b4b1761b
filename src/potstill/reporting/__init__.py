"""What a person reads of a run: the page, the table, the headline, the cards.

In: the content of report.json and what lies beside it. Out: text. No model is asked and no file is read but our own template.
"""

from __future__ import annotations

from potstill.reporting.cards import model_card
from potstill.reporting.dataset_card import RowsMade, dataset_card
from potstill.reporting.headline import headline
from potstill.reporting.page import render_page
from potstill.reporting.table import result_table

__all__ = ["RowsMade", "dataset_card", "headline", "model_card", "render_page", "result_table"]
