"""`edgegauge import`: results that another tool measured, as result files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from edgegauge.cli.output import emit_json, json_option, stderr, stdout, table, text_of, warn
from edgegauge.document import write_json
from edgegauge.llama_bench import import_rows
from edgegauge.result import Result

RESULTS = Path("results")


@click.group("import")
def command() -> None:
    """Results that another tool measured, as result files."""


@command.command("llama-bench")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=RESULTS,
    show_default=True, metavar="DIR", help="Where the result files go.",
)  # fmt: skip
@json_option
def llama_bench(file: Path, output: Path, as_json: bool) -> None:
    """Import FILE, the output of `llama-bench -o json` or `-o jsonl`.

    A prompt row and a decoding row of the same settings become one result file.
    """
    results, left_out = import_rows(file)
    paths = [output / name_of(result) for result in results]
    for path, result in zip(paths, results, strict=True):
        write_json(path, result.model_dump(mode="json"))
    for sentence in left_out:
        warn(f"left out, {sentence}")
    for warning in dict.fromkeys(w for result in results for w in result.warnings):
        warn(warning)
    if as_json:
        emit_json({"format": 1, "files": [str(path) for path in paths], "left_out": left_out})
    else:
        _show(results, paths)


def name_of(result: Result) -> str:
    """A file name that no other import has, and the same import always gets."""
    digest = hashlib.sha256(result.model_dump_json().encode()).hexdigest()[:8]
    return f"{result.artifact.name}-llama-bench-{digest}.json"


def _show(results: list[Result], paths: list[Path]) -> None:
    made = table("model", "workload", "prefill", "decode", right=("prefill", "decode"))
    for result in results:
        work = result.workload
        asked = (
            f"{work.prompt_tokens} + {work.generated_tokens} tokens at depth {work.depth}, "
            f"threads: {work.threads}"
        )
        figures = result.summary.prefill_tok_per_s, result.summary.decode_tok_per_s
        made.add_row(result.artifact.name, asked, *(text_of(f, interval=True) for f in figures))
    stdout().print(made)
    for path in paths:
        stderr().print(f"result written to {path}", soft_wrap=True, markup=False)
