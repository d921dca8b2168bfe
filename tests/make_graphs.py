"""Small ONNX and TFLite graphs for tests, made with the formats' own libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

VOCAB, WIDTH = 120, 8


def onnx_classifier(path: Path, *, batch: int | str = 1) -> Path:
    """pixels float32 [batch, 3, 8, 8] -> scores [batch, 5]: flatten, multiply, ReLU."""
    weights = np.arange(3 * 8 * 8 * 5, dtype=np.float32).reshape(-1, 5) / 1000
    return _save(
        path,
        [
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["raw"]),
            helper.make_node("Relu", ["raw"], ["scores"]),
        ],
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 5])],
        {"w": weights},
    )


def onnx_encoder(path: Path, *, length: int | str = "sequence") -> Path:
    """input_ids, attention_mask int64 [batch, length] -> the masked mean of embeddings."""
    table = np.random.default_rng(0).standard_normal((VOCAB, WIDTH)).astype(np.float32)
    shape = ["batch", length]
    return _save(
        path,
        [
            helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
            helper.make_node("Mul", ["embedded", "mask3"], ["kept"]),
            helper.make_node("ReduceMean", ["kept", "one"], ["mean"], keepdims=0),
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, shape)
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["batch", WIDTH])],
        {"table": table, "last": np.array([-1]), "one": np.array([1])},
    )


def _save(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], values: dict[str, Any]
) -> Path:
    initializers = [numpy_helper.from_array(v, n) for n, v in values.items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def tflite_sum(path: Path, *, rows: int = 4, free: bool = False) -> Path:
    """pixels float32 [rows, 6] -> pixels + pixels; `free`: the first dimension is open."""
    builder = flatbuffers.Builder(1024)
    model = schema.ModelT()
    model.version, model.description = 3, "test"
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    model.operatorCodes = [code]
    model.buffers = [schema.BufferT()]
    graph = schema.SubGraphT()
    graph.tensors = [_tensor(name, rows, free) for name in ("pixels", "doubled")]
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 0], [1]
    operator.builtinOptionsType = schema.BuiltinOptions.AddOptions
    operator.builtinOptions = schema.AddOptionsT()
    graph.operators = [operator]
    graph.inputs, graph.outputs = [0], [1]
    model.subgraphs = [graph]
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _tensor(name: str, rows: int, free: bool) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.buffer = name, schema.TensorType.FLOAT32, 0
    tensor.shape = [1 if free else rows, 6]
    if free:
        tensor.shapeSignature = [-1, 6]
    return tensor
