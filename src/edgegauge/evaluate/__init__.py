"""Evaluating: how good an artifact's answers are, on a task (accuracy) and a text (perplexity).

`evaluate` runs it in a child process; `EvaluationResult` is the file it makes.
"""

from edgegauge.evaluate.manager import evaluate
from edgegauge.evaluate.result import EvaluationResult, paired_difference

__all__ = ["EvaluationResult", "evaluate", "paired_difference"]
