"""What the drivers share; runs in an engine's environment, whose packages it imports when used.

A driver is a function that converts, and one that says which logits the result computes:

    answer(convert, logits, onnx_bytes)

`logits(job, ids)` returns float32 of shape (len(ids), vocabulary), or None where the artifact gives
no logits of a prompt.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

POSITIONS = 48
"""Length of the prompt that is compared; long enough to tell a wrong graph from a right one."""


class Job:
    """What a driver is asked to do."""

    def __init__(self, path: str) -> None:
        asked = json.loads(Path(path).read_text("utf-8"))
        self.model: str = asked["model"]
        self.output = Path(asked["output"])
        self.main = self.output / asked["name"]
        self.precision: str = asked["precision"]
        self.answer = Path(asked["answer"])
        self.compares: bool = asked["compare"]


def answer(
    convert: Callable[[Job], None],
    logits: Callable[[Job, list[int]], Any],
    tensor_bytes: Callable[[Path], int],
) -> None:
    """Convert, compare with the original, and write what edgegauge wants to know.

    Ends with one line where that fails: it becomes a message, and frames of a library help nobody.
    """
    job = Job(sys.argv[1])
    compared = None
    try:
        convert(job)
        if job.compares:
            print("comparing with the original", flush=True)
            compared = _compare(job, logits)
        found = {"tensor_bytes": tensor_bytes(job.main), "agreement": compared}
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
    job.answer.write_text(json.dumps(found), "utf-8")


def _compare(job: Job, logits: Callable[[Job, list[int]], Any]) -> dict[str, float] | None:
    """How the artifact's logits differ from PyTorch's in f32; None without a causal model."""
    import numpy as np
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(job.model, trust_remote_code=False)
    if not causal(config):
        return None
    vocab = config.get_text_config().vocab_size
    ids = np.random.default_rng(0).integers(0, vocab, POSITIONS).tolist()
    model = AutoModelForCausalLM.from_pretrained(
        job.model, dtype=torch.float32, trust_remote_code=False, use_safetensors=True
    )
    with torch.no_grad():
        expected = model.eval()(torch.tensor([ids])).logits[0].numpy()
    del model
    computed = logits(job, ids)
    if computed is None:
        return None
    if not np.isfinite(computed).all():
        sys.exit("the artifact computes logits that are not finite")
    return agreement(expected, np.asarray(computed))


def causal(config: Any) -> bool:
    """Whether the configuration is that of a model which predicts the next token."""
    names = config.architectures or []
    return any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names)


def agreement(expected: Any, computed: Any) -> dict[str, float]:
    """Errors in standard deviations of the expected logits, KL in nats; rows are positions."""
    import numpy as np

    computed = computed[:, : expected.shape[1]].astype(np.float64)  # some pad the vocabulary
    expected = expected.astype(np.float64)
    errors = np.abs(computed - expected) / expected.std()
    p, q = _log_softmax(expected), _log_softmax(computed)
    divergences = (np.exp(p) * (p - q)).sum(axis=1).clip(0)
    return {
        "positions": len(expected),
        "max_error": float(errors.max()),
        "mean_error": float(errors.mean()),
        "rms_error": float(np.sqrt((errors**2).mean())),
        "kl_mean": float(divergences.mean()),
        "kl_p99": float(np.quantile(divergences, 0.99)),
        "kl_max": float(divergences.max()),
        "same_choice": float((expected.argmax(1) == computed.argmax(1)).mean()),
    }


def _log_softmax(logits: Any) -> Any:
    import numpy as np

    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def onnx_bytes(path: Path) -> int:
    """Bytes of the initializers of an ONNX file; those that share their place count once."""
    import onnx

    stored: dict[tuple[str, ...], int] = {}
    for tensor in onnx.load(os.fspath(path), load_external_data=False).graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if "location" in place:
            key = (place["location"], place.get("offset", "0"))
            stored[key] = int(place.get("length", 0))
        else:
            stored[(tensor.name,)] = len(tensor.raw_data) or tensor.ByteSize()
    return sum(stored.values())


def tflite_bytes(path: Path) -> int:
    """Bytes of the buffers of a TFLite file, wherever in the file they are."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    buffers = (model.Buffers(index) for index in range(model.BuffersLength()))
    return sum(buffer.DataLength() or buffer.Size() for buffer in buffers)
