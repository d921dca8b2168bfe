"""Our ONNX folders in onnxruntime-genai, as they are: it must say what our own session says.

EDGEGAUGE_GENAI_PYTHON names an interpreter that has that library; without it nothing is tested.
"""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from conversions import convert
from make_models import FAMILIES, make_folder

from edgegauge.measure.runtimes.onnxruntime import OnnxRuntime

GENAI = os.environ.get("EDGEGAUGE_GENAI_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GENAI, reason="EDGEGAUGE_GENAI_PYTHON names no interpreter"),
]

PROMPT = [5, 40, 260, 77, 12, 250, 9, 33] * 5
COUNT = 24

PROGRAM = """
import json, sys
import numpy as np, onnxruntime_genai as og
model = og.Model(sys.argv[1])
prompt, count = json.loads(sys.argv[2]), int(sys.argv[3])
params = og.GeneratorParams(model)
room = len(prompt) + count
params.set_search_options(max_length=room, min_length=room, do_sample=False)
generator = og.Generator(model, params)
generator.append_tokens(np.array(prompt, np.int32))
while not generator.is_done():
    generator.generate_next_token()
print(json.dumps([int(n) for n in generator.get_sequence(0)][len(prompt):]))
"""


@pytest.mark.parametrize("recipe", ["f32", "int4", "int8"])
@pytest.mark.parametrize("family", FAMILIES)
def test_genai_generates_what_our_session_does(tmp_path: Path, family: str, recipe: str) -> None:
    spec = make_folder(tmp_path / "model", family, seed=3)
    path = convert(spec, tmp_path / "model", tmp_path, recipe, file_format="onnx").path
    assert GENAI is not None
    command = [GENAI, "-c", PROGRAM, str(path.parent), json.dumps(PROMPT), str(COUNT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-1000:]
    with closing(OnnxRuntime().open(path, threads=1, context=128)) as session:
        assert session.generate([PROMPT], COUNT, frozenset()) == [json.loads(done.stdout)]
