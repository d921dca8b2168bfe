"""Result files of graphs that are not generative language models: vision, speech, embeddings.

Format history:
    1  first version

One inference is one call of the graph on one input. Raw latencies are stored; the summary can be
recomputed from them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from edgegauge.document import Document
from edgegauge.energy import Energy
from edgegauge.figure import Figure
from edgegauge.result import (
    ChildRun,
    Failure,
    MemorySummary,
    Percentiles,
    PromptSource,
    Seconds,
    Tool,
)


class GraphFacts(Document):
    """The file that ran, and its inputs as they were fed."""

    name: str
    format: Literal["onnx", "tflite", "gguf"]
    file_bytes: int
    """With the files of external data that it names."""
    sha256: str
    inputs: dict[str, str]
    """Name: type and declared shape, `float32 [1, 3, 224, 224]`; a free dimension is `?`."""
    outputs: dict[str, str]


class GraphWorkload(Document):
    """What each run does."""

    threads: int = Field(gt=0, le=1024)
    runs: int = Field(default=3, gt=0, le=1000)
    """Child processes."""
    inferences: int = Field(default=100, gt=0, le=20_000)
    """Timed calls in each child, at least; quick ones are repeated until a second is timed."""
    shapes: dict[str, list[int]] = {}
    """Shapes given for inputs whose own are free."""
    text: PromptSource | None = None
    """Encoder models: the file whose lines are the inputs. None: random values."""
    seed: int = 0


class GraphRun(ChildRun):
    """A child that timed inferences; its phases end with warm_up and inference."""

    load_s: float
    latencies_s: list[Seconds] = Field(min_length=1)
    tokens: list[int] | None = None
    """Tokens of each timed input, where the inputs are texts."""

    @property
    def passes(self) -> int:
        """One for each inference."""
        return len(self.latencies_s)


class GraphSummary(Document):
    """The figures."""

    latency_s: Percentiles
    inferences_per_s: Figure
    tokens_per_s: Figure | None = None
    load_s: Figure
    memory: MemorySummary
    j_per_inference: Figure | None = None
    """Total energy per inference of the best source; `GraphResult.energy` has the rest."""
    energy_reason: str | None = None


class GraphResult(Document):
    """A result file of `edgegauge measure` on such a graph."""

    format: Literal[1] = 1
    tool: Tool
    graph: GraphFacts
    host: dict[str, Any]
    workload: GraphWorkload
    samples: list[GraphRun]
    failures: list[Failure] = []
    energy: list[Energy] = []
    summary: GraphSummary
    warnings: list[str] = []
    trustworthy: bool = True
    created: str
