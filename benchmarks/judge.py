"""Does a judge's habit decide, or the answers? A judge on loopback with planted faults, asked as the program asks any judge.

    bias        two models whose answers are equally good; the judge takes the first place in 30 % of the pairs, whatever stands
                there. Asked in one order alone, the peer of this benchmark, the model in front seems to win; asked in both,
                neither wins, and the bias that is reported is the planted one
    better      the same judge, one model better in 70 % of the pairs: it wins, by as much as it is better
    agreement   the 778 worked solutions of gsm8k_teacher_pool (POTSTILL_DATA names its folder) and a judge that errs on 15 % of
                them: the agreement with gold that is reported is the planted one

Finished arms are kept in --results; the same command goes on where it stopped. Two CPU cores take about a minute.

    python benchmarks/judge.py [--arm bias|better|agreement] [--pairs 2000] [--results FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from judging.judges import answers_shown, judge  # noqa: E402
from loopback import Messages  # noqa: E402
from potstill.inference import Client  # noqa: E402
from potstill.judging import (  # noqa: E402
    agreement,
    compare_answers,
    make_rubric,
    position_bias,
    score_answers,
    tally,
)
from potstill.judging.estimates import Estimate, share  # noqa: E402
from potstill.rows import Message, Row, content_hash  # noqa: E402
from potstill.tasks import get_task  # noqa: E402

POOL = ROOT / os.environ.get("POTSTILL_DATA", "../shared/data") / "math" / "gsm8k_teacher_pool.train.jsonl"
PLANTED = 0.3  # share of pairs in which the judge takes the first place whatever stands there
ADVANTAGE = 0.7  # share of pairs in which the better model's answer is better
MISTAKEN = 0.15  # share of solutions that the judge gets wrong
TEXT = make_rubric(get_task("text"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--arm", choices=("bias", "better", "agreement"))
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--results", type=Path, default=Path("runs/benchmark-judge.json"))
    options = parser.parse_args()
    arms: dict[str, Callable[[], dict[str, Any]]] = {
        "bias": lambda: asyncio.run(compare(options.pairs, 0.5)),
        "better": lambda: asyncio.run(compare(options.pairs, ADVANTAGE)),
        "agreement": lambda: asyncio.run(against_gold()),
    }
    results = orjson.loads(options.results.read_bytes()) if options.results.is_file() else {}
    for name in arms if options.arm is None else [options.arm]:
        key = f"{name}-{options.pairs}"
        if key not in results:
            results[key] = arms[name]()
            options.results.parent.mkdir(parents=True, exist_ok=True)
            options.results.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2))
        print(f"{name:<10} {results[key]['told']}\n{'':<10} {'holds' if results[key]['holds'] else 'DOES NOT HOLD'}")
    held = all(entry["holds"] for entry in results.values())
    print("holds" if held else "DOES NOT HOLD")
    return 0 if held else 1


async def compare(pairs: int, advantage: float) -> dict[str, Any]:
    """Two models on `pairs` rows; the first one's answer is the better one in this share of them."""
    draw = random.Random(17)
    rows = [Row(f"r{number}", (Message("user", f"Question {number}?"),)) for number in range(pairs)]
    worth = [(1, 0) if draw.random() < advantage else (0, 1) for _ in rows]
    ones, others = ([f"An answer worth {entry[place]}, by model {place}." for entry in worth] for place in (0, 1))
    async with opened(takes_the_first_place) as client:
        comparisons = await compare_answers(client, rows, ones, others, TEXT)
    counted, bias = tally(comparisons), position_bias(comparisons)
    one_order = share(sum(entry.forward == "first" for entry in comparisons), pairs)
    if counted.win_rate is None or bias is None:
        raise RuntimeError("no verdict could be read")
    decided = share(counted.wins, counted.wins + counted.losses)
    true_rate = sum(first for first, _ in worth) / pairs
    held = {
        "one order misleads": not contains(one_order, true_rate),
        "both orders do not": contains(decided, true_rate),
        "the bias is the planted one": contains(bias.towards_first, PLANTED) and bias.towards_second.value == 0,
    }
    told = (
        f"{pairs} pairs, the first model's answer better in {true_rate:.3f}: one order says {figure(one_order)}, both orders "
        f"{figure(decided)} of those decided (with ties {figure(counted.win_rate)}); bias towards the first place "
        f"{figure(bias.towards_first)}, planted {PLANTED}; error {abs(one_order.value - true_rate):.3f} against "
        f"{abs(decided.value - true_rate):.3f}; {', '.join(name for name, holds in held.items() if holds)}"
    )
    return {"told": told, "holds": all(held.values())}


async def against_gold() -> dict[str, Any]:
    """Real solutions of two models, and a judge that is wrong about a share of them."""
    task = get_task("math")
    records = [orjson.loads(line) for line in POOL.read_bytes().splitlines()]
    pool = [
        (task.row({"question": record["question"], "answer": record["answer"]}), record[model]["solution"])
        for record in records for model in ("teacher_175b_verification", "teacher_6b_finetuning")
    ]
    right = {(row.messages[-1].content, text.strip()): bool(task.verify(text, row)) for row, text in pool}
    wrong_about = set(sorted(right, key=lambda solution: fraction(*solution))[: round(MISTAKEN * len(right))])

    def mistaken(messages: Messages) -> str:
        (answer,) = answers_shown(messages)
        question = re.findall(r"\nuser: (.*?)\n<<end of task ", messages[-1]["content"], re.DOTALL)[0]
        correct = right[question, answer] != ((question, answer) in wrong_about)
        return f'{{"reason": "as far as I can see", "score": {5 if correct else 1}}}'

    rows, answers = [row for row, _ in pool], [text for _, text in pool]
    async with opened(mistaken) as client:
        judged = await score_answers(client, rows, answers, make_rubric(task))
    by_row: dict[str, list[tuple[bool, bool]]] = {}
    for (row, text), judgement in zip(pool, judged, strict=True):
        by_row.setdefault(row.id, []).append((bool(judgement.accepted), bool(task.verify(text, row))))
    found = agreement(list(by_row.values()))
    if found is None or found.kappa is None:
        raise RuntimeError("nothing could be compared")
    told = (
        f"{len(pool)} solutions: agreement {figure(found.accuracy)}, planted {1 - MISTAKEN}; kappa {figure(found.kappa)}; "
        f"{found.wrongly_accepted} wrong accepted, {found.wrongly_rejected} right rejected, "
        f"{sum(entry.score is None for entry in judged)} unreadable"
    )
    return {"told": told, "holds": contains(found.accuracy, 1 - MISTAKEN)}


def takes_the_first_place(messages: Messages) -> str:
    """In 30 % of the pairs, in both orders; else the answer that is worth more."""
    first, _ = answers_shown(messages)
    question = re.findall(r"Question \d+\?", messages[-1]["content"])[0]
    if fraction(question) < PLANTED:
        return '{"reason": "the first one", "winner": "A"}'
    return f'{{"reason": "the better one", "winner": "{"A" if "worth 1" in first else "B"}"}}'


def fraction(*parts: str) -> float:
    """A number from 0 to 1 that these texts always get."""
    return int(content_hash(parts)[:8], 16) / 2**32


@asynccontextmanager
async def opened(answer: Callable[[Messages], str]) -> AsyncIterator[Client]:
    with tempfile.TemporaryDirectory() as folder:
        async with judge(Path(folder), answer) as (client, _):
            yield client


def contains(estimate: Estimate, value: float) -> bool:
    return estimate.ci95[0] <= value <= estimate.ci95[1]


def figure(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.ci95[0]:.3f}, {estimate.ci95[1]:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
