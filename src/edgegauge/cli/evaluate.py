"""`edgegauge evaluate`: accuracy and perplexity of an artifact on the user's own data."""

from __future__ import annotations

from pathlib import Path

import click

from edgegauge.artifact import open_artifact
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
from edgegauge.document import write_json
from edgegauge.evaluate import EvaluationResult, evaluate

EXISTING = click.Path(path_type=Path)


@click.command("evaluate")
@click.argument("artifact", type=EXISTING)
@click.option(
    "--task", type=EXISTING, metavar="FILE.jsonl", help="Exact match on JSON lines: prompt, answer."
)
@click.option("--text", type=EXISTING, metavar="FILE.txt", help="Perplexity on a UTF-8 text.")
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
    limit: int | None,
    threads: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """How good ARTIFACT's answers are: exact match on a task, perplexity on a text, or both.

    ARTIFACT is a model file, or a folder that holds one. Examples:

    \b
      edgegauge evaluate model.gguf --task questions.jsonl
      edgegauge evaluate model.gguf --text notes.txt -o result.json
    """
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
    document = found.model_dump(mode="json")
    if output:
        write_json(output, document)
    for warning in found.warnings:
        warn(warning)
    if as_json:
        emit_json(document)
    else:
        _print(found)
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
