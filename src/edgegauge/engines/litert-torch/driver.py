"""Drives litert-torch's exporter of Hugging Face models; signatures `prefill_128` and `decode`."""

import shutil
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "shared"))

from engine_driver import Job, answer, tflite_bytes

PREFILL, CACHE = 128, 1280
"""Tokens of the prefill signature and of the cache, as litert-lm's own models have them."""

MASKED = -1e9


def convert(job: Job) -> None:
    """Export the graph with its tokenizer beside it."""
    from litert_torch.generative.export_hf.export import export

    made = job.answer.parent / "made"
    export(
        job.model, str(made), trust_remote_code=False, prefill_lengths=[PREFILL],
        cache_length=CACHE, quantization_recipe=job.precision, bundle_litert_lm=False,
    )  # fmt: skip
    plain = next(made.glob("*/model.tflite"))
    quantized = plain.with_name("model_quantized.tflite")
    (quantized if job.precision != "none" else plain).rename(job.main)
    job.main.chmod(0o644)
    for path in plain.parent.iterdir():
        if path.suffix != ".tflite":
            path.rename(job.output / path.name)
    shutil.rmtree(made)


def logits(job: Job, ids: list[int]) -> object:
    """What LiteRT computes with the file, a token at a time."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(job.main))
    decode = interpreter.get_signature_runner("decode")
    details = decode.get_input_details()
    caches = {n: np.zeros(d["shape"], d["dtype"]) for n, d in details.items() if "cache" in n}
    if set(details) - set(caches) != {"tokens", "input_pos", "mask"}:
        return None
    allowed = details["mask"]["dtype"] == np.bool_
    found = []
    for position, token in enumerate(ids):
        seen = np.arange(details["mask"]["shape"][-1]) <= position
        mask = seen if allowed else np.where(seen, 0, MASKED).astype(np.float32)
        computed = decode(
            tokens=np.array([[token]], np.int32), input_pos=np.array([position], np.int32),
            mask=mask.reshape(details["mask"]["shape"]), **caches,
        )  # fmt: skip
        found.append(computed.pop("logits")[0, 0].copy())
        caches = {name: computed[name] for name in caches}
    return np.stack(found)


if __name__ == "__main__":
    answer(convert, logits, tflite_bytes)
