"""Stage 5, export: the student as the files that phones, laptops and cheap servers run.

In: student/. Out: exports/ with one file a format, a Modelfile for Ollama, and the untouched student in the first format, so
that it can be measured on the same footing. Every file is verified by use: it answers validation prompts greedily, and the
weights say how many nats a token its choices cost them; past `export.max_quality_loss` the job fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

from potstill.catalog import ResolvedModel
from potstill.errors import ExportError
from potstill.exporting import verify_export
from potstill.exporting.gguf import DOWN_PROJECTIONS, export_gguf
from potstill.generation import Direct
from potstill.inference import open_engine, open_scorer
from potstill.pipeline.asking import context_needed
from potstill.pipeline.stage import Context
from potstill.pipeline.untouched import initial_student
from potstill.rows import Row
from potstill.templates import ChatTemplate

VERIFIED_PROMPTS = 16
VERIFIED_TOKENS = 64
_SUFFIX = {"gguf:q8_0": "Q8_0", "gguf:f16": "F16"}


class Export:
    """Writes and verifies the files."""

    name = "export"
    version = 1

    def inputs(self, context: Context) -> Mapping[str, Any]:
        return {
            "student": context.digests(context.folder.student / "model.safetensors", context.folder.student / "config.json"),
            "formats": context.job.export.formats,
            "max_quality_loss": context.job.export.max_quality_loss,
            "baseline": "baseline" in context.job.evaluation.models,
            "rows": context.digests(context.folder.rows / "validation.jsonl"),
        }

    def run(self, context: Context, fingerprint: str) -> Mapping[str, Any]:
        folder, formats = context.folder, context.job.export.formats
        folder.exports.mkdir(exist_ok=True)
        for old in folder.exports.iterdir():
            old.unlink()
        context.progress.begin("exporting", len(formats))
        files: dict[str, Any] = {}
        for done, form in enumerate(formats, 1):
            files[form] = self._export(context, form)
            context.advance(done)
        if formats and "baseline" in context.job.evaluation.models:
            start, in_half = initial_student(context), files[formats[0]]["in_half"]
            _write(start, baseline_path(context), formats[0], f"{context.job.name}-baseline", in_half)
        if formats:
            (folder.exports / "Modelfile").write_text(modelfile(export_path(context, formats[0]), context.rows("train")[0]))
        context.progress.end()
        told = ", ".join(f"{form} {entry['size_bytes'] / 1e6:.0f} MB" for form, entry in files.items())
        context.progress.say(f"exported: {told or 'nothing asked for'}")
        return {"files": files}

    def _export(self, context: Context, form: str) -> dict[str, Any]:
        """Write and verify a file, and where 8 bits lose too much, once more with more of it in half precision.

        Raises:
            ExportError: it loses more than the job allows.
        """
        folder, path, most = context.folder, export_path(context, form), context.job.export.max_quality_loss
        ways: list[tuple[str, ...]] = [(), DOWN_PROJECTIONS] if form == "gguf:q8_0" else [()]
        for in_half in ways:
            written = _write(folder.student, path, form, context.job.name, in_half)
            loss = self._verify(context, path)
            if loss <= most:
                return {"file": folder.relative(path), "size_bytes": written, "quality_loss": loss, "in_half": list(in_half)}
            if in_half != ways[-1]:
                rest = ", ".join(ways[-1])
                context.progress.say(f"{form} loses {loss:.4f} nats a token; written again with {rest} in half precision")
        raise ExportError(
            f"the {form} file departs from the weights",
            where=folder.relative(path),
            found=f"{loss:.4f} nats a token lost",
            expected=f"at most {most} (export.max_quality_loss)",
            hint="export gguf:f16, which rounds less, or train longer" if form == "gguf:q8_0" else None,
        )

    def _verify(self, context: Context, path: Path) -> float:
        """Nats a token that the file's greedy choices lose under the weights."""
        task, rows = context.task(), context.rows("validation")[:VERIFIED_PROMPTS]
        size = context_needed(Direct(task), rows, VERIFIED_TOKENS)
        return asyncio.run(quality_loss(path, context.folder.student, rows, size))

    def outputs(self, context: Context) -> Iterable[Path]:
        return [path for path in context.folder.exports.iterdir() if path.is_file()]


async def quality_loss(path: Path, folder: Path, rows: Sequence[Row], context_tokens: int) -> float:
    """Mean nats a token that the greedy choices of a GGUF file lose under the weights in `folder` that it was made from."""
    async with AsyncExitStack() as opened:
        file = open_engine(ResolvedModel("export", "gguf", path=path), concurrency=4, context=context_tokens)
        opened.push_async_callback(file.aclose)
        weights = open_scorer(ResolvedModel("weights", "folder", path=folder))
        opened.push_async_callback(weights.aclose)
        prompts = [row.messages for row in rows]
        comparison = await verify_export(
            file, weights, ChatTemplate.from_folder(folder), prompts, max_tokens=VERIFIED_TOKENS
        )
        return comparison.loss_nats


def _write(source: Path, path: Path, form: str, name: str, in_half: Sequence[str]) -> int:
    """Write a file; its size in bytes."""
    quantization: Literal["q8_0", "f16"] = "q8_0" if form == "gguf:q8_0" else "f16"
    template = ChatTemplate.from_folder(source).source
    return export_gguf(source, path, quantization, name=name, chat_template=template, in_half=in_half).size_bytes


def export_path(context: Context, form: str) -> Path:
    """Where the student goes in a format."""
    return context.folder.exports / f"student.{_SUFFIX[form]}.gguf"


def baseline_path(context: Context) -> Path:
    """Where the untouched student goes, in the first format of the job."""
    return context.folder.exports / f"baseline.{_SUFFIX[context.job.export.formats[0]]}.gguf"


def modelfile(path: Path, example: Row) -> str:
    """What `ollama create NAME -f Modelfile` reads: the file, the system prompt of the rows, greedy answers."""
    lines = [f"FROM ./{path.name}", "PARAMETER temperature 0"]
    if example.messages[0].role == "system":
        lines.append(f'SYSTEM """{example.messages[0].content}"""')
    return "\n".join(lines) + "\n"
