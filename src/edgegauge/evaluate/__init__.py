"""Evaluating: how good an artifact's answers are, on a task (accuracy) and a text (perplexity).

`manager.evaluate` runs it in a child process; `result.EvaluationResult` is the file it makes.
"""
