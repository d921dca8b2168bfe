"""Drives optimum's ONNX exporter, and ONNX Runtime's dynamic quantisation for int8."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "shared"))

from engine_driver import Job, answer, causal, onnx_bytes

TASKS = {
    "ForConditionalGeneration": "text2text-generation-with-past",
    "ForMaskedLM": "fill-mask",
    "ForQuestionAnswering": "question-answering",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForImageClassification": "image-classification",
}
"""End of an architecture's name: what optimum calls its task. Others give their last states."""

MOST_INLINE_BYTES = 1_800_000_000
"""A model above this keeps its weights outside the graph, which holds 2 GiB at most."""


def task_of(model: str) -> str:
    """What the model in this folder is for; InputError-like exit where it is several graphs."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    if causal(config):
        return "text-generation-with-past"
    name = (config.architectures or [""])[0]
    return next((task for end, task in TASKS.items() if name.endswith(end)), "feature-extraction")


def convert(job: Job) -> None:
    """Export in f32, then quantise the weights for int8."""
    from optimum.exporters.onnx import main_export

    main_export(
        job.model, str(job.output), task=task_of(job.model), device="cpu", dtype="fp32",
        library_name="transformers", trust_remote_code=False, local_files_only=True,
        do_validation=False,
    )  # fmt: skip
    made = sorted(job.output.glob("*.onnx"))
    if len(made) != 1:
        sys.exit(f"this model becomes {len(made)} graphs: {', '.join(p.name for p in made)}")
    if job.precision == "fp32":
        made[0].rename(job.main)
    else:
        quantize(made[0], job.main)


def quantize(plain: Path, quantized: Path) -> None:
    """Weights to 8-bit integers with a scale for each column; removes the plain model."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    print("quantising", flush=True)
    large = sum(p.stat().st_size for p in plain.parent.glob("*.onnx*")) > MOST_INLINE_BYTES
    quantize_dynamic(
        plain, quantized, per_channel=True, weight_type=QuantType.QInt8,
        use_external_data_format=large,
    )  # fmt: skip
    for path in plain.parent.glob(f"{plain.name}*"):
        path.unlink()


def logits(job: Job, ids: list[int]) -> object:
    """What ONNX Runtime computes with the graph, from an empty cache."""
    import numpy as np
    import onnxruntime as ort

    session = ort.InferenceSession(str(job.main), providers=["CPUExecutionProvider"])
    known = {
        "input_ids": np.array([ids]),
        "attention_mask": np.ones((1, len(ids)), np.int64),
        "position_ids": np.arange(len(ids))[None],
    }
    fed = {}
    for wanted in session.get_inputs():
        empty = [
            1 if i == 0 else n if isinstance(n, int) else 0 for i, n in enumerate(wanted.shape)
        ]
        fed[wanted.name] = known.get(wanted.name, np.zeros(empty, np.float32))
    return session.run(["logits"], fed)[0][0]


if __name__ == "__main__":
    answer(convert, logits, onnx_bytes)
