"""Drives onnxruntime-genai's model builder, which is made to be executed as a module."""

import runpy
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "shared"))

from engine_driver import Job, answer, onnx_bytes


def convert(job: Job) -> None:
    """Write the folder that onnxruntime-genai loads."""
    command = [
        "builder", "-i", job.model, "-o", str(job.output), "-p", job.precision, "-e", "cpu",
        "-c", str(job.answer.parent / "cache"), "--extra_options", f"filename={job.main.name}",
        "hf_token=false", "hf_remote=false",
    ]  # fmt: skip
    asked, sys.argv = sys.argv, command
    runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__", alter_sys=True)
    sys.argv = asked


def logits(job: Job, ids: list[int]) -> object:
    """What onnxruntime-genai itself computes with the folder."""
    import numpy as np
    import onnxruntime_genai as genai

    model = genai.Model(str(job.output))
    settings = genai.GeneratorParams(model)
    settings.set_search_options(max_length=len(ids) + 1)
    generator = genai.Generator(model, settings)
    generator.append_tokens(np.array([ids], np.int32))
    return generator.get_output("logits")[0]


if __name__ == "__main__":
    answer(convert, logits, onnx_bytes)
