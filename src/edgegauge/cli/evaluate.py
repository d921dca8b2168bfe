"""`edgegauge evaluate`: accuracy and perplexity of an artifact on the user's own data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from edgegauge.artifact import open_artifact
from edgegauge.cli.against import print_against
from edgegauge.cli.output import (
    emit_json,
    json_option,
    progress,
    stderr,
    stdout,
    table,
    text_of,
    warn,
)
from edgegauge.document import Document, write_json
from edgegauge.evaluate.against import AgainstResult, compare_with
from edgegauge.evaluate.manager import evaluate
from edgegauge.evaluate.result import EvaluationResult
from edgegauge.verification import Verification
from edgegauge.verify import verify_again

EXISTING = click.Path(path_type=Path)


@click.command("evaluate")
@click.argument("artifact", type=EXISTING)
@click.option(
    "--task", type=EXISTING, metavar="FILE.jsonl", help="Exact match on JSON lines: prompt, answer."
)
@click.option("--text", type=EXISTING, metavar="FILE.txt", help="Perplexity on a UTF-8 text.")
@click.option(
    "--against",
    metavar="OTHER",
    help="Another artifact of the same vocabulary, or f32: the model it was made from.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only the first N items of the task and the first N windows of the text.",
)
@click.option(
    "--threads", type=click.IntRange(1, 1024), help="Threads (default: all physical cores)."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the result file here.")
@json_option
def command(
    artifact: Path,
    task: Path | None,
    text: Path | None,
    against: str | None,
    limit: int | None,
    threads: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """How good ARTIFACT's answers are: exact match on a task, perplexity on a text, or both.

    With --against: how far its next-token distributions are from those of another artifact (on a
    text of yours or the built-in one), or of the model it was made from, at full precision.

    ARTIFACT is a model file, or a folder that holds one. Examples:

    \b
      edgegauge evaluate model.gguf --task questions.jsonl
      edgegauge evaluate model.gguf --text notes.txt -o result.json
      edgegauge evaluate model-q4_0.gguf --against model-q8_0.gguf
      edgegauge evaluate model-q4_0.gguf --against f32
    """
    if against is not None:
        if task is not None:
            raise click.UsageError("--against compares distributions: it takes no --task")
        found_against = _against(artifact, against, text, limit, threads)
        _give(found_against, output, as_json, lambda: print_against(artifact, found_against))
        return
    if task is None and text is None:
        raise click.UsageError(
            "nothing to evaluate on: give --task FILE.jsonl, --text FILE.txt, or both"
        )
    with progress("evaluate", total=1.0) as advance:
        found = evaluate(
            open_artifact(artifact),
            task=task,
            text=text,
            limit=limit,
            threads=threads,
            progress=advance,
        )
    for warning in found.warnings:
        warn(warning)
    _give(found, output, as_json, lambda: _print(found))


def _against(
    artifact: Path, other: str, text: Path | None, limit: int | None, threads: int | None
) -> AgainstResult | Verification:
    """The artifact against another one, or against its model."""
    opened = open_artifact(artifact)
    with progress("evaluate", total=1.0) as advance:
        if other != "f32":
            return compare_with(
                opened, open_artifact(Path(other)),
                text=text, limit=limit, threads=threads, progress=advance,
            )  # fmt: skip
        if text is not None or limit is not None:
            raise click.UsageError("--against f32 uses the built-in text: no --text, no --limit")
        return verify_again(opened, threads=threads, progress=advance)


def _give(found: Document, output: Path | None, as_json: bool, show: Callable[[], None]) -> None:
    """Write the document where that is asked for, and print it."""
    document = found.model_dump(mode="json")
    if output:
        write_json(output, document)
    if as_json:
        emit_json(document)
    else:
        show()
    if output:
        stderr().print(f"written to {output}", soft_wrap=True, markup=False)


def _print(found: EvaluationResult) -> None:
    rows = table("figure", "value", "of", right=("value",))
    if found.accuracy:
        accuracy = found.accuracy
        rows.add_row(
            "exact match",
            text_of(accuracy.exact_match, interval=True),
            f"{accuracy.correct} of {accuracy.total} items right",
        )
    if found.perplexity:
        of = found.perplexity
        rows.add_row("perplexity", text_of(of.perplexity, interval=True), f"{of.tokens} tokens")
        rows.add_row("bits per byte", text_of(of.bits_per_byte, interval=True), f"{of.bytes} bytes")
    console = stdout()
    console.print(found.artifact.name, style="bold", markup=False)
    console.print(rows)
