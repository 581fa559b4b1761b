"""A way to ask for a summary: four rounds, each denser than the one before at the same length.

The method is that of Adams et al. 2023, "From Sparse to Dense: GPT-4 Summarization with Chain of Density Prompting"
(arXiv:2309.04269); the words are ours. A dialogue of one request a round is more robust than one reply with four summaries in
it: no summary shares its token limit with another, and where a round is cut off the last whole one is there.
What it costs: four requests a row, in each of which the document is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from potstill.generation.candidate import Candidate, Failure
from potstill.generation.ways import Dialogue, Teacher, candidate_of, tokens_of
from potstill.inference.client import Answer
from potstill.inference.dialogue import RowAnswer
from potstill.inference.protocol import Reply, Request
from potstill.rows import Message, Row
from potstill.tasks.summarization import Summarization

ROUNDS = 4
_FIRST = "Keep this first summary general: few names, figures and details."
# Ordinary text takes one to three tokens a word, and a summary may come out twice as long as it was asked for.
_TOKENS_PER_WORD = 6


@dataclass(frozen=True, slots=True)
class ChainOfDensity:
    """Each round adds what the summary lacks; the last whole round is the answer.

    The row's `meta` holds `density_rounds`, the number of the round that was kept, and `density_stopped`, why a later one was
    not, where that is so.
    """

    task: Summarization

    async def ask(self, teacher: Teacher, row: Row, sample: int) -> Candidate | Failure:
        sampling = replace(teacher.sampling, max_tokens=self._room(row, teacher.sampling.max_tokens))
        dialogue = list(self._opening(row))
        rounds: list[Answer] = []
        for number in range(1, ROUNDS + 1):
            answer = await teacher.client.ask(Request(tuple(dialogue), sampling, sample, top_logprobs=teacher.top_logprobs))
            rounds.append(answer)
            if answer.reply is None or _why_not_whole(answer.reply, sampling.max_tokens):
                break
            if number < ROUNDS:
                dialogue += [Message("assistant", answer.reply.text), Message("user", self._denser(row))]
        return _densest(rounds, teacher.name, sample, sampling.max_tokens)

    def longest(self, row: Row, max_tokens: int) -> Dialogue:
        further = tuple(Message("user", self._denser(row)) for _ in range(ROUNDS - 1))
        return Dialogue((*self._opening(row), *further), ROUNDS, self._room(row, max_tokens))

    def _room(self, row: Row, max_tokens: int) -> int:
        """Tokens enough for a summary of the length target, and no fewer than the job allows."""
        return max(max_tokens, self.task.target_words(row) * _TOKENS_PER_WORD)

    def _opening(self, row: Row) -> Sequence[Message]:
        messages = self.task.teacher_messages(row)
        told = f"Use at most {self.task.target_words(row)} words. {_FIRST}"
        if messages[0].role != "system":
            return (Message("system", told), *messages)
        own = messages[0].content
        if own != row.messages[0].content:  # the task's own prompt, which has been told the length
            told = _FIRST
        return (replace(messages[0], content=f"{own} {told}"), *messages[1:])

    def _denser(self, row: Row) -> str:
        return (
            "Find one to three names, figures or facts of the text that matter and that your summary lacks. Write a new "
            "summary that keeps all it had and adds them. Make room by joining and shortening sentences and by dropping empty "
            f"phrases: it still has at most {self.task.target_words(row)} words and can be understood without the text. "
            "Answer with the new summary alone."
        )


def _densest(rounds: Sequence[Answer], teacher: str, sample: int, max_tokens: int) -> Candidate | Failure:
    """The last whole round; the first one as it is where there is no whole one, for curation to judge."""
    failed = next((answer.failure for answer in rounds if answer.reply is None), None)
    if failed is not None:
        return Failure(f"round {len(rounds)} of {ROUNDS}: {failed}")
    replies = [answer.reply for answer in rounds if answer.reply is not None]
    stopped = _why_not_whole(replies[-1], max_tokens)
    kept = max(len(replies) - (stopped is not None), 1)
    candidate = candidate_of(RowAnswer((rounds[kept - 1],), 1), teacher, sample)
    if isinstance(candidate, Failure):
        return candidate
    notes = {"density_rounds": kept} | ({"density_stopped": f"round {len(replies)} {stopped}"} if stopped else {})
    return replace(
        candidate,
        completion_tokens=tokens_of(replies),
        latency_s=sum(reply.latency_s for reply in replies),
        rationale=None,
        notes=notes,
    )


def _why_not_whole(reply: Reply, max_tokens: int) -> str | None:
    if reply.finish_reason == "length":
        return f"was cut off at {max_tokens} tokens"
    if reply.finish_reason == "refused":
        return "was refused or filtered"
    return None if reply.text.strip() else "is empty"
