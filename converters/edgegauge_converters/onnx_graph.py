"""The blueprint lowered to an ONNX graph of ONNX Runtime's fused operators.

    graph = lower(spec, layout, all_logits=False)

One graph does the prompt and every token after it. Its inputs and outputs are those that
onnxruntime-genai feeds: `input_ids` and `attention_mask` (batch, tokens), for every layer
`past_key_values.N.key` and `.value` (batch, kv heads, room, head_dim), bound to the same memory as
`present.N.key` and `.value`; `logits`. Keys are rotated inside the attention, positions follow from
the mask.

With `all_logits` the logits are (batch, sequence, vocab), which scoring a text needs. Without, they
are (batch, 1, vocab): those of the last token, and the last block computes nothing but its keys and
values for the others. A prompt is faster that way and needs no room for rows that nobody reads.

Operators of the domain com.microsoft are described in ONNX Runtime's `docs/ContribOperators.md`.
Tables of rotary factors are computed by nodes on constants, which ONNX Runtime evaluates once while
loading, so a file does not grow with the model's context.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgegauge.errors import InputError
from edgegauge.model import ModelSpec
from edgegauge_converters.blueprint import (
    LOGITS,
    Add,
    Attention,
    Embed,
    Gate,
    Linear,
    Operation,
    RmsNorm,
    Rotary,
    blueprint,
)
from edgegauge_converters.onnx_builder import INT8_ACTIVATIONS, MICROSOFT, Builder
from edgegauge_converters.onnx_file import FLOAT, INT32, INT64, UINT8, Graph, Initializer, Value
from edgegauge_converters.onnx_layout import Group, Layout


def lower(spec: ModelSpec, layout: Layout, *, all_logits: bool) -> Graph:
    """The graph of this model with its weights where the layout puts them.

    Raises InputError for a model that the operators cannot express.
    """
    check_spec(spec)
    return _Lowering(spec, layout, all_logits).lowered()


def check_spec(spec: ModelSpec) -> None:
    """InputError where GroupQueryAttention refuses the model."""
    if spec.head_dim % 16:
        raise InputError(
            f"head_dim: ONNX Runtime's attention takes a multiple of 16, got {spec.head_dim}",
            hint="GGUF has no such limit: --format gguf",
        )


class _Lowering(Builder):
    """One pass over the blueprint; `values` says what each of its names is in the graph by now."""

    def __init__(self, spec: ModelSpec, layout: Layout, all_logits: bool) -> None:
        super().__init__(layout)
        self._spec, self._all_logits = spec, all_logits
        self._values: dict[str, str] = {}
        self._parts: dict[str, tuple[str, int, list[int]]] = {}
        """Names that are a stretch of a wider value: that value, which stretch, all widths."""
        self._turned: dict[str, tuple[float, ...]] = {}
        """Frequencies by which the attention still has to turn a name."""
        self._tables: dict[tuple[float, ...], tuple[str, str]] = {}
        self._operations: Sequence[Operation] = list(blueprint(spec))

    def lowered(self) -> Graph:
        """Lower everything."""
        self._declare_inputs()
        at = 0
        while at < len(self._operations):
            at += self._lower(at)
        rows: int | str = "sequence_length" if self._all_logits else 1
        shape = ("batch_size", rows, self._spec.vocab)
        self.graph.outputs.insert(0, Value("logits", FLOAT, shape))
        return self.graph

    def _lower(self, at: int) -> int:
        """Lower the operation at this place, and those after it that fuse with it; their count."""
        operation = self._operations[at]
        match operation:
            case Embed():
                self._embed(operation)
            case RmsNorm():
                self._norm(operation)
            case Linear():
                return self._linear(at, operation)
            case Rotary():
                self._turned[operation.output] = operation.frequencies
            case Attention():
                self._attend(operation)
                if operation.slot == self._spec.executed_layers - 1 and not self._all_logits:
                    self._keep_last_token(at)
            case Gate():
                self._gate(operation)
            case Add():
                return self._add(at, operation)
        return 1

    # --- the graph's own inputs

    def _declare_inputs(self) -> None:
        """Inputs but the cache, and from the mask the two lengths that attention asks for."""
        for name, length in (("input_ids", "sequence_length"), ("attention_mask", "total_length")):
            self.graph.inputs.append(Value(name, INT64, ("batch_size", length)))
        one = self.constant("one", np.array([1]))
        self.node("ReduceSum", ["attention_mask", one], "mask.sum", keepdims=0)
        self.node("Sub", ["mask.sum", one], "mask.last")
        self.node("Cast", ["mask.last"], "last_position", to=INT32)
        self.node("Shape", ["attention_mask"], "mask.length", start=1, end=2)
        self.node("Cast", ["mask.length"], "mask.length32", to=INT32)
        scalar = self.constant("scalar", np.array([], np.int64))
        self.node("Reshape", ["mask.length32", scalar], "total_length")

    def _cache(self, slot: int) -> tuple[list[str], list[str]]:
        """Declare keys and values of one attention; their names as inputs and as outputs."""
        spec = self._spec
        names = []
        for what in ("key", "value"):
            past, present = f"past_key_values.{slot}.{what}", f"present.{slot}.{what}"
            for values, name, room in (
                (self.graph.inputs, past, "past_length"),
                (self.graph.outputs, present, "present_length"),
            ):
                shape = ("batch_size", spec.kv_heads, room, spec.head_dim)
                values.append(Value(name, FLOAT, shape))
            names.append((past, present))
        return [past for past, _ in names], [present for _, present in names]

    # --- operations

    def _embed(self, operation: Embed) -> None:
        group = self.layout.place(operation.weight)
        output = self._fresh("embedding")
        if group.blocks is None:
            self.node("Gather", [self.plain(group), "input_ids"], output)
        else:
            output = self._embed_integers(group, output)
        if operation.scale != 1:
            scale = self.constant("embedding.scale", np.array(operation.scale, np.float32))
            output = self.node("Mul", [output, scale], self._fresh("embedding"))
        self._values[operation.output] = output

    def _embed_integers(self, group: Group, output: str) -> str:
        blocks = group.blocks
        assert blocks is not None
        count = blocks.blocks(group.cols)
        rows = Initializer(
            f"{group.name}.rows", UINT8, (group.rows, count * blocks.block_bytes), None,
            group.offset,
        )  # fmt: skip
        self.graph.initializers[rows.name] = rows
        self.node(
            "GatherBlockQuantized", [rows.name, "input_ids", self._scales(group)], output,
            domain=MICROSOFT, bits=blocks.bits, block_size=blocks.block, gather_axis=0,
            quantize_axis=1,
        )  # fmt: skip
        if count * blocks.block == group.cols:
            return output
        ends = [("start", 0), ("end", group.cols), ("axis", 2)]
        cut = [self.constant(f"embedding.{name}", np.array([n])) for name, n in ends]
        return self.node("Slice", [output, *cut], self._fresh("embedding"))

    def _norm(self, operation: RmsNorm) -> None:
        weight = self.plain(self.layout.place(operation.weight))
        value = self._value(operation.inputs[0])
        width = operation.weight.cols
        per_head = operation.weight.role in ("attn_q_norm", "attn_k_norm")
        if per_head:
            heads = self.constant("per_head", np.array([0, 0, -1, width]))
            value = self.node("Reshape", [value, heads], self._fresh("heads"))
        normed = self.node(
            "SimplifiedLayerNormalization", [value, weight], self._fresh(operation.output),
            axis=-1, epsilon=operation.eps, stash_type=1,
        )  # fmt: skip
        if per_head:
            flat = self.constant("flat", np.array([0, 0, -1]))
            normed = self.node("Reshape", [normed, flat], self._fresh(operation.output))
        self._values[operation.output] = normed

    def _linear(self, at: int, first: Linear) -> int:
        """A product with every projection that is stored in the same group; their count."""
        group = self.layout.place(first.weight)
        run = self._operations[at : at + len(group.members)]
        projections = [op for op in run if isinstance(op, Linear)]
        assert [op.weight.role for op in projections] == [m.tensor.role for m in group.members]
        name = "logits" if first.output == LOGITS else self._fresh(first.output)
        bias = self.layout.place(first.bias) if first.bias else None
        product = self._product(self._value(first.inputs[0]), group, bias, name)
        widths = [op.weight.rows for op in projections]
        for index, projection in enumerate(projections):
            self._parts.pop(projection.output, None)
            if len(projections) == 1:
                self._values[projection.output] = product
            else:
                self._parts[projection.output] = (product, index, widths)
        return len(projections)

    def _product(self, value: str, group: Group, bias: Group | None, output: str) -> str:
        """value @ weight.T + bias."""
        added = [] if bias is None else [self.plain(bias)]
        blocks = group.blocks
        if blocks is None:
            plain = self._fresh("product") if added else output
            inputs = [value, self.plain(group)]
            self.node("FusedMatMul", inputs, plain, domain=MICROSOFT, transB=1)
            return self.node("Add", [plain, *added], output) if added else plain
        shape = (group.rows, blocks.blocks(group.cols), blocks.block_bytes)
        integers = Initializer(group.name, UINT8, shape, None, group.offset)
        self.graph.initializers[group.name] = integers
        inputs = [value, group.name, self._scales(group)]
        return self.node(
            "MatMulNBits", inputs + (["", "", *added] if added else []), output, domain=MICROSOFT,
            K=group.cols, N=group.rows, bits=blocks.bits, block_size=blocks.block,
            accuracy_level=INT8_ACTIVATIONS,
        )  # fmt: skip

    def _attend(self, operation: Attention) -> None:
        query, key, _ = operation.inputs
        frequencies = self._turned.pop(query)
        assert frequencies == self._turned.pop(key)
        past, present = self._cache(operation.slot)
        output = self._fresh("attention")
        inputs = [
            *self._attended(operation.inputs), *past, "last_position", "total_length",
            *self._table(frequencies),
        ]  # fmt: skip
        self.node(
            "GroupQueryAttention", inputs, output, *present, domain=MICROSOFT,
            num_heads=self._spec.heads, kv_num_heads=self._spec.kv_heads,
            scale=float(operation.scale), do_rotary=1, rotary_interleaved=0,
            local_window_size=operation.window or -1,
        )  # fmt: skip
        self._values[operation.output] = output

    def _attended(self, names: tuple[str, str, str]) -> list[str]:
        """Queries, keys and values: as they came out of one product, or each for itself."""
        parts = [self._parts.get(name) for name in names]
        if parts[0] is not None and all(p is not None and p[0] == parts[0][0] for p in parts):
            return [parts[0][0], "", ""]
        return [self._value(name) for name in names]

    def _gate(self, operation: Gate) -> None:
        gate, up = (self._value(name) for name in operation.inputs)
        active = self._fresh("active")
        if operation.activation == "silu":  # ONNX Runtime fuses the two
            sigmoid = self.node("Sigmoid", [gate], self._fresh("sigmoid"))
            self.node("Mul", [gate, sigmoid], active)
        else:
            self.node("Gelu", [gate], active, approximate="tanh")
        self._values[operation.output] = self.node(
            "Mul", [active, up], self._fresh(operation.output)
        )

    def _add(self, at: int, operation: Add) -> int:
        """The sum, together with the norm that follows it."""
        norm = self._operations[at + 1]
        assert isinstance(norm, RmsNorm) and norm.inputs == (operation.output,)
        inputs = [self._value(name) for name in operation.inputs]
        normed, total = self._fresh(norm.output), self._fresh(operation.output)
        weight = self.plain(self.layout.place(norm.weight))
        self.node(
            "SkipSimplifiedLayerNormalization", [*inputs, weight], normed, "", "", total,
            domain=MICROSOFT, epsilon=norm.eps,
        )  # fmt: skip
        self._values |= {operation.output: total, norm.output: normed}
        return 2

    def _keep_last_token(self, at: int) -> None:
        """Keep only the last token of what the last attention gave and of what that is added to."""
        added = next(op for op in self._operations[at:] if isinstance(op, Add))
        attended = self._operations[at].output
        last = self.constant("last", np.array([-1]))
        for name in (attended, added.inputs[0]):
            kept = self._fresh(f"last.{name}")
            self._values[name] = self.node("Gather", [self._value(name), last], kept, axis=1)

    # --- constants and names

    def _table(self, frequencies: tuple[float, ...]) -> tuple[str, str]:
        """Cosines and sines (context, head_dim / 2), from angles in double precision."""
        if frequencies in self._tables:
            return self._tables[frequencies]
        name = f"rotary.{len(self._tables)}"
        span = (("first", 0.0), ("context", float(self._spec.context)), ("step", 1.0))
        inputs = [self.constant(f"rotary.{key}", np.array(number)) for key, number in span]
        column = self.constant("column", np.array([-1, 1]))
        turns = self.constant(f"{name}.frequencies", np.array([frequencies], np.float64))
        self.node("Range", inputs, f"{name}.positions")
        self.node("Reshape", [f"{name}.positions", column], f"{name}.column")
        self.node("Mul", [f"{name}.column", turns], f"{name}.angles")
        made = []
        for operator in ("Cos", "Sin"):
            exact = self.node(operator, [f"{name}.angles"], f"{name}.{operator}64")
            made.append(self.node("Cast", [exact], f"{name}.{operator}", to=FLOAT))
        self._tables[frequencies] = (made[0], made[1])
        return self._tables[frequencies]

    def _value(self, name: str) -> str:
        """What a name of the blueprint is; a stretch of a wider value is cut out of it here."""
        if name in self._parts:
            whole, _, widths = self._parts[name]
            sizes = self.constant("widths." + ".".join(map(str, widths)), np.array(widths))
            mine = {n: part[1] for n, part in self._parts.items() if part[0] == whole}
            cut = [self._fresh(n) for n in sorted(mine, key=mine.__getitem__)]
            self.node("Split", [whole, sizes], *cut, axis=-1)
            for part, value in zip(sorted(mine, key=mine.__getitem__), cut, strict=True):
                self._values[part] = value
                del self._parts[part]
        return self._values[name]

    def _fresh(self, stem: str) -> str:
        return f"{stem}.{len(self.graph.nodes)}"
