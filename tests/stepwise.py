"""An artifact part by part against its runtime's own arithmetic, as verification has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgegauge.model import ModelSpec
from edgegauge.verify import VerificationJob
from edgegauge_converters.reference import Reference
from edgegauge_converters.verify import FormatVerifier
from edgegauge_converters.verify_reference import BothWeights, Step, expect


def parts_of(
    verifier: FormatVerifier,
    path: Path,
    spec: ModelSpec,
    recipe: str,
    tokens: Sequence[int],
) -> tuple[list[Step], float]:
    """Every part from the runtime's own values before it, and the share of equal choices."""
    job = VerificationJob(
        path=path, file_format=path.suffix[1:], recipe=recipe, spec=spec, folder=None, threads=1
    )
    trace = verifier.trace(job, tokens)
    assert len(trace.logits) == len(tokens)
    weights = BothWeights(verifier.weights(job), None, verifier.stored(job))
    rounding = verifier.rounding(job)
    made = expect(spec, weights, tokens, rounding, trace, 1, lambda done: None)
    assert made.stepped is not None and len(made.steps) == 2 * spec.executed_layers + 2
    logits = np.array(list(Reference(spec, weights.stored).head(made.stepped, rounding)))
    return made.steps, float(np.mean(logits.argmax(1) == trace.logits.argmax(1)))
