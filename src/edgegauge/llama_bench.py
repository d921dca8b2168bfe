"""Results of llama.cpp's own benchmark, `llama-bench -o json` or `-o jsonl`, as result files.

    results = import_rows(Path("rows.jsonl"))

llama-bench times prompts (`pp`) and decoding (`tg`) apart, each repeated in one process. A prompt
row and a decoding row of the same file, build, machine and settings become one result. Decoding
that began after the prompt (`-d` = depth + prompt) is what `edgegauge measure` does and is
preferred; else the row of the same depth is taken, and a warning says so. The same test executed
several times, as lines appended to one file, counts as several runs.

What the tool does not tell is None: time to first token, gaps between tokens, loading, memory.
Nothing is made up in its place; the repetitions are kept in `Result.imported`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from edgegauge import __version__
from edgegauge.artifact import sha256_of
from edgegauge.document import Document, parse, read_rows
from edgegauge.errors import InputError
from edgegauge.figure import Figure
from edgegauge.host.cpu import chip_name
from edgegauge.measure.statistics import centre
from edgegauge.result import (
    ArtifactFacts,
    MemorySummary,
    Repetitions,
    Result,
    Summary,
    Tool,
    Workload,
)

MAX_ROWS = 10_000
RUNTIME = "llama-bench"
OF_ONE_TEST = {
    "n_prompt", "n_gen", "n_depth", "test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts",
    "samples_ns", "samples_ts",
}  # fmt: skip
"""Keys that may differ between rows that belong together."""

Text = Annotated[str, Field(max_length=4000)]
Tokens = Annotated[int, Field(ge=0, le=1_000_000)]
Nanoseconds = Annotated[float, Field(ge=1, le=1e15)]
Test = Literal["prefill", "decode"]


class Row(Document):
    """What is used of a row; the rest (batch sizes, cache types, ...) tells settings apart."""

    model_config = ConfigDict(extra="allow")

    build_commit: Text = ""
    build_number: int = 0
    cpu_info: Text = ""
    gpu_info: Text = ""
    backends: Text = "CPU"
    model_filename: Text
    model_type: Text = ""
    model_size: int = Field(gt=0, lt=2**53)
    """Bytes of all tensors."""
    model_n_params: int = Field(gt=0, lt=2**53)
    n_threads: int = Field(gt=0, le=1024)
    n_prompt: Tokens
    n_gen: Tokens
    n_depth: Tokens = 0
    test_time: Text = ""
    samples_ns: list[Nanoseconds] = Field(min_length=1, max_length=10_000)
    """Duration of each repetition."""

    @property
    def settings(self) -> str:
        """What rows of one result have in common, as text that can be compared."""
        return repr(sorted((k, repr(v)) for k, v in self if k not in OF_ONE_TEST))

    @property
    def test(self) -> tuple[Test, int, int] | None:
        """Which test, its tokens and depth; None for `-pg`, which times both together."""
        if bool(self.n_prompt) == bool(self.n_gen):
            return None
        if self.n_prompt:
            return "prefill", self.n_prompt, self.n_depth
        return "decode", self.n_gen, self.n_depth


class _Rows(Document):
    rows: list[Row] = Field(min_length=1, max_length=MAX_ROWS)


def import_rows(path: Path) -> tuple[list[Result], list[str]]:
    """The results in a file of llama-bench, and sentences about rows that are in none of them.

    Raises InputError for a file that is not such output, or of which no two rows belong together.
    """
    rows = parse({"rows": read_rows(path)}, _Rows, str(path)).rows
    groups: dict[str, dict[tuple[Test, int, int], list[Row]]] = {}
    left_out = []
    for row in rows:
        if row.test is None:
            left_out.append(
                f"{_name(row)}: {row.n_prompt} prompt and {row.n_gen} generated tokens "
                "were timed together"
            )
        else:
            groups.setdefault(row.settings, {}).setdefault(row.test, []).append(row)
    digests: dict[str, str | None] = {}
    results = []
    for tests in groups.values():
        pairs, alone = _pairs(tests)
        left_out += [f"{_name(tests[t][0])}: nothing to join {_test_name(t)} with" for t in alone]
        for prefill, decode in pairs:
            try:
                results.append(_result(tests[prefill], tests[decode], digests))
            except ValidationError as error:
                raise InputError(f"cannot hold the rows of {path}: {error}") from None
    if not results:
        raise InputError(
            f"no prompt row and decoding row belong together @ {path}", left_out,
            hint="llama-bench -m FILE -p 128 -n 64 -o jsonl gives both",
        )  # fmt: skip
    return results, left_out


def _pairs(
    tests: Iterable[tuple[Test, int, int]],
) -> tuple[list[tuple[Any, Any]], list[tuple[Test, int, int]]]:
    """Prompt tests with the decoding tests that go with them, and tests without a partner."""
    kinds = list(tests)
    pairs = []
    for prefill in (t for t in kinds if t[0] == "prefill"):
        _, prompt, depth = prefill
        decodes = [t for t in kinds if t[0] == "decode"]
        for tokens in dict.fromkeys(t[1] for t in decodes if t[1] > 1):
            wanted = [("decode", tokens, depth + prompt), ("decode", tokens, depth)]
            found = next((t for t in wanted if t in decodes), None)
            if found:
                pairs.append((prefill, found))
    joined = {test for pair in pairs for test in pair}
    return pairs, [test for test in kinds if test not in joined]


def _result(prefill: list[Row], decode: list[Row], digests: dict[str, str | None]) -> Result:
    first, rows = prefill[0], [*prefill, *decode]
    filename = first.model_filename
    if filename not in digests:
        digests[filename] = _digest(Path(filename), first.model_size)
    build = f"{first.build_number} ({first.build_commit})" if first.build_commit else "unknown"
    source = f"{RUNTIME} {build}"
    offloaded = first.gpu_info or first.backends not in ("", "CPU", "BLAS")
    host: dict[str, Any] = {"cpu_model": chip_name(first.cpu_info) or None}
    if offloaded:
        host["accelerator"] = f"{first.backends} {first.gpu_info}".strip()
    return Result(
        tool=Tool(edgegauge=__version__, runtime=RUNTIME, runtime_version=build),
        artifact=_artifact(first, digests[filename]),
        host=host,
        workload=Workload(
            prompt_tokens=first.n_prompt, generated_tokens=decode[0].n_gen, depth=first.n_depth,
            threads=first.n_threads, runs=max(len(prefill), len(decode)),
            repetitions=min(len(row.samples_ns) for row in rows),
        ),
        samples=[],
        imported=[_repetitions(row) for row in rows],
        summary=Summary(
            prefill_tok_per_s=_rate(prefill, source), decode_tok_per_s=_rate(decode, source),
            ttft_s=None, inter_token_s=None, load_s=None,
            memory=MemorySummary(
                peak_rss_bytes=None, peak_anonymous_bytes=None, peak_file_bytes=None
            ),
            energy_reason=f"{RUNTIME} reads no energy meter",
        ),
        warnings=_warnings(prefill, decode, digests[filename]),
        created=max(_time(row) for row in rows),
    )  # fmt: skip


def _repetitions(row: Row) -> Repetitions:
    assert row.test  # rows without one are in no group
    test, tokens, depth = row.test
    seconds = [ns / 1e9 for ns in row.samples_ns]
    return Repetitions(test=test, tokens=tokens, depth=depth, seconds=seconds)


def _rate(rows: list[Row], source: str) -> Figure:
    """Median rate over all repetitions of a test."""
    found = centre([(r.n_prompt or r.n_gen) * 1e9 / ns for r in rows for ns in r.samples_ns])
    return Figure(found.value, "tok/s", "measured", source, found.low, found.high)


def _artifact(row: Row, digest: str | None) -> ArtifactFacts:
    name = _name(row)
    here = Path(row.model_filename)
    return ArtifactFacts(
        name=name, model=name, recipe=None, format="gguf",
        file_bytes=here.stat().st_size if digest else row.model_size, sha256=digest,
        parameters=row.model_n_params, effective_bits=8 * row.model_size / row.model_n_params,
    )  # fmt: skip


def _warnings(prefill: list[Row], decode: list[Row], digest: str | None) -> list[str]:
    """How these figures differ from those of `edgegauge measure`."""
    first, begun = prefill[0], decode[0].n_depth
    found = [
        f"{RUNTIME} decodes random tokens: choosing each from the model's answer is not timed",
        f"figures are medians of the repetitions; {RUNTIME} prints their mean",
    ]
    if begun != first.n_depth + first.n_prompt:
        found.append(
            f"decoding began with {begun} tokens in the context, not after the prompt "
            f"({first.n_depth + first.n_prompt}), which makes it faster"
        )
    if min(len(prefill), len(decode)) == 1:
        found.append("all repetitions come from one run, which hides how runs differ")
    if digest is None:
        found.append(
            f"{Path(first.model_filename).name or 'the model'} is not here: no hash, and its size "
            "is that of its tensors"
        )
    return found


def _digest(path: Path, tensor_bytes: int) -> str | None:
    """SHA-256 of the model file, if it is on this machine and can be the one."""
    try:
        if not path.is_file() or path.stat().st_size < tensor_bytes:
            return None
        with path.open("rb") as stream:
            if stream.read(4) != b"GGUF":
                return None
        return sha256_of(path)
    except (OSError, ValueError):  # unreadable, or a name that no system has
        return None


def _name(row: Row) -> str:
    """The file's name without folder and suffix, safe as a file name."""
    last = re.split(r"[/\\]", row.model_filename)[-1].removesuffix(".gguf")
    return re.sub(r"[^\w.-]+", "_", last).strip(".")[:100] or "model"


def _test_name(test: tuple[Test, int, int]) -> str:
    kind, tokens, depth = test
    return f"{'pp' if kind == 'prefill' else 'tg'}{tokens}" + (f" @ d{depth}" if depth else "")


def _time(row: Row) -> str:
    """When the row was measured, UTC; now where it does not say."""
    try:
        found = datetime.fromisoformat(row.test_time).astimezone(UTC)
    except (ValueError, OverflowError):
        found = datetime.now(UTC)
    return found.isoformat(timespec="seconds")
