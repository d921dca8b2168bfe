"""The ladder: three small trained models of one family, for examples and tests without a network.

Each model is a Hugging Face folder (Llama architecture, f16, one tokenizer for all) that turns a
home-assistant command into a structured intent. Beside them lie `evaluation.jsonl`, held-out
commands with their answers for exact match, and `heldout.txt`, text of the same kind for
perplexity. How they were made, and how good they are: `scripts/ladder/README.md`.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

MODELS: tuple[str, ...] = ("ladder-0.2m", "ladder-1m", "ladder-4m")


def path() -> Path:
    """The folder that holds the models and the held-out files."""
    return Path(str(files(__name__)))
