"""Does an exported file answer as the weights it was made from?

The student's weights are written as one f16 GGUF file, llama.cpp answers the quickstart's prompts from it, greedily, and the
weights, run by transformers in float32, judge every token it chose. Printed: the tokens compared, at how many the two part, and
the most that one choice lost, in nats. Half precision may part them at near-ties: at most once in 300 tokens, by at most
0.05 nats. Files go to a temporary folder. Two CPU cores take about two minutes for 200 answers of 64 tokens.

    python benchmarks/export_agreement.py --prompts 200 --tokens 64 [--student runs/NAME/student]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from potstill.catalog import ResolvedModel, resolve
from potstill.exporting import Comparison, verify_export
from potstill.exporting.gguf import export_gguf
from potstill.inference import open_engine, open_scorer
from potstill.rows import Message, read_rows
from potstill.spec import ModelSpec
from potstill.student import build_student
from potstill.templates import ChatTemplate

TOKENS_PER_PARTING = 300
WORST_GAP_NATS = 0.05
CONTEXT_TOKENS = 512
SLOTS = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=64, help="the length of each answer")
    parser.add_argument("--student", type=Path, help="a folder with weights; by default the embedded model's")
    parser.add_argument("--threads", type=int, help="CPU threads; by default all")
    options = parser.parse_args()
    rows = read_rows(Path(str(files("potstill.quickstart") / "train.jsonl")))
    prompts = [row.messages for _, row in zip(range(options.prompts), rows, strict=False)]
    with tempfile.TemporaryDirectory() as temporary:
        student = options.student or Path(temporary) / "student"
        if options.student is None:
            build_student(resolve(ModelSpec(model="smollm2-135m-instruct")), student, shrink=None)
        file = Path(temporary) / "student.F16.gguf"
        export_gguf(student, file, "f16", name="student")
        result = asyncio.run(compare(file, student, prompts, options.tokens, options.threads))
    print(f"tokens {result.tokens}  partings {result.partings}  worst gap {result.worst_gap_nats:.4f} nats", end="  ")
    print(f"mean loss {result.loss_nats:.2e} nats")
    agrees = result.partings * TOKENS_PER_PARTING <= result.tokens and result.worst_gap_nats <= WORST_GAP_NATS
    print("agrees" if agrees else "DOES NOT AGREE")
    return 0 if agrees else 1


async def compare(
    file: Path, student: Path, prompts: list[tuple[Message, ...]], tokens: int, threads: int | None
) -> Comparison:
    """The file's answers, judged by the weights."""
    export = open_engine(ResolvedModel("f16", "gguf", path=file), concurrency=SLOTS, context=CONTEXT_TOKENS, threads=threads)
    weights = open_scorer(ResolvedModel("weights", "folder", path=student), threads=threads)
    try:
        return await verify_export(export, weights, ChatTemplate.from_folder(student), prompts, max_tokens=tokens)
    finally:
        await export.aclose()
        await weights.aclose()


if __name__ == "__main__":
    sys.exit(main())
