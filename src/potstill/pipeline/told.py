"""What a teacher behind an endpoint tells of its probabilities: with its answers, and on vLLM and SGLang of any text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from potstill.errors import JobFailedError
from potstill.inference import Journal
from potstill.inference.account import Account
from potstill.pipeline.asking import ledger_of
from potstill.pipeline.lessons import lessons_of
from potstill.pipeline.stage import Context
from potstill.pipeline.teachers import told_logprobs
from potstill.rows import Row
from potstill.signals.endpoint import signals_of
from potstill.signals.prompt_logprobs import PromptLogprobs
from potstill.signals.records import Record
from potstill.signals.token_bytes import TokenBytes
from potstill.signals.top_k import TopKEncoding

if TYPE_CHECKING:
    from potstill.signals.signal import TopK
    from potstill.signals.store import SignalStore
    from potstill.training.collator import TokenisedRow
    from potstill.training.teaching import TeacherView


def keep_told(context: Context, store: SignalStore, view: TeacherView) -> tuple[int, int]:
    """Fill the store; gives how many texts were added to it, and how many it still lacks.

    Raises:
        JobFailedError: there is nothing to learn from.
        BudgetError, EndpointError: see `PromptLogprobs`; what was received stays in the journal.
    """
    encoding, tokens, added = store.encoding, TokenBytes(view.tokenizer), 0
    assert isinstance(encoding, TopKEncoding)  # what else could be asked for is refused by `potstill check`

    def keep(text: TokenisedRow, signal: TopK) -> None:
        nonlocal added
        if store.missing([text.key]):
            store.append([Record(text.key, len(signal), encoding.pack_told(signal))])
            added += 1

    without = Counter[str]()
    with Journal(context.folder.journal / "generate") as journal:
        for text, signal in signals_of(journal, _incomplete(context, store, view), tokens, without):
            keep(text, signal)
    missing = {text.key: text for _, texts in _incomplete(context, store, view) for text in texts if store.missing([text.key])}
    teacher = context.teacher
    if missing and teacher.kind == "endpoint" and teacher.engine in ("vllm", "sglang"):
        context.progress.say(f"{teacher.name} is asked about {len(missing)} texts that it did not write so")
        account = Account.of(teacher, ledger_of([teacher], context.job.generation, context.folder.journal))
        top, without = told_logprobs(context.job.training, teacher), Counter[str]()
        with PromptLogprobs(teacher, context.folder.journal / "capture", account, top=top) as asked:
            asked.ask(missing.values(), tokens, keep, without)
    _tell(context, store, without)
    return added, without.total()


def _incomplete(context: Context, store: SignalStore, view: TeacherView) -> Iterator[tuple[Row, list[TokenisedRow]]]:
    """The rows of which the store lacks a text, each with all of its texts."""
    for row, all_turns in lessons_of(context):
        texts = view.texts(row, all_turns=all_turns)
        if store.missing(text.key for text in texts):
            yield row, texts


def _tell(context: Context, store: SignalStore, without: Counter[str]) -> None:
    for reason, count in without.most_common():
        context.progress.say(f"signals: {count} texts have none: {reason}")
    if not len(store):
        raise JobFailedError(
            "the teacher told no probabilities that the student could learn from", where="journal/generate",
            found="; ".join(f"{count} texts: {reason}" for reason, count in without.most_common()),
            hint="training.method: sft learns from the answers alone",
        )
