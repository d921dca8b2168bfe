"""Shapes: decoders with the most parameters that still meet a budget on a device.

    found = search(device, limits, Wish(recipe="q4_0"))
    found[0].spec                   # most parameters outside embedding and head
    config_of(found[0].spec)        # its config.json

For those who train their own. Every shape of a grid is a Llama-type decoder; for each width,
grouping of heads and feed-forward ratio the most layers that pass are found by bisection, and what
is returned is the frontier: no other shape has more parameters and decodes as fast. Vocabulary, tie
and sharing are the wish's: they are worth something that parameters do not count.

*What counts.* Parameters outside embedding and head: the loss of a decoder follows those, and
depends little on its shape (Kaplan et al. 2020, arXiv:2001.08361). Counting embeddings would reward
large vocabularies, and heads of their own, for bytes that teach it little.

*The grid* stays where published decoders are (test_shapes holds the catalog against it).

- Heads of 64, of 128 from a width of 2048 on. One, three, four or eight query heads share a
  key/value head (MobileLLM 3 and 4, Llama 3.2 4, TinyLlama 8).
- Feed-forward width 8/3 of the width (the same size as an ungated layer of 4; Shazeer 2020,
  arXiv:2002.05202), 4 (Llama 3.2 1B, SmolLM2 1.7B) or 16/3 (Qwen 2.5), rounded up to 256, so that
  k-quants fit.
- Width / layers between 16 and 48 up to a width of 1280, since small decoders gain more from depth
  than from width (MobileLLM, Liu et al. 2024, arXiv:2402.14905), and up to 128 beyond.
- With sharing, each stored block is executed twice in a row and counted once (MobileLLM-LS: 0.7
  points better than without at the same size). Both turns are predicted to take their full time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from edgegauge.advice import largest
from edgegauge.budget import Budget
from edgegauge.choose import Verdict, verdict
from edgegauge.device import DeviceProfile
from edgegauge.fit import candidate_of
from edgegauge.model import ModelSpec
from edgegauge.predict import DEFAULT_CONTEXT, DEFAULT_PROMPT_TOKENS, Prediction, Predictor

WIDTHS = (*range(256, 1024, 64), *range(1024, 1536, 128), *range(1536, 5121, 256))
GROUPS = (1, 3, 4, 8)
FFN_RATIOS = (8 / 3, 4, 16 / 3)
FFN_STEP = 256
DEEP_UP_TO = 1280
"""Widest of the small decoders, which are kept deep."""
DEFAULT_VOCAB = 32768


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What every shape of a search has in common."""

    recipe: str
    file_format: str = "gguf"
    vocab: int = DEFAULT_VOCAB
    tied: bool = True
    """The head is the embedding."""
    layer_repeats: int = 1
    """Times each stored block is executed in a row: 2 is MobileLLM's layer sharing."""
    context: int = DEFAULT_CONTEXT
    prompt_tokens: int = DEFAULT_PROMPT_TOKENS


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder that passes, with what is predicted for it."""

    spec: ModelSpec
    prediction: Prediction
    verdict: Verdict

    @property
    def rate(self) -> float:
        """Predicted tokens per second."""
        decode = self.prediction.decode_tok_per_s
        return decode.value if decode else 0.0


def search(device: DeviceProfile, limits: Budget, wish: Wish) -> list[Shape]:
    """The frontier of the shapes that pass, most parameters first; [] where none does.

    A quality floor in `limits` is left out: nobody has measured a shape's quality.
    """
    limits = limits.model_copy(update={"quality": None})
    predictor = Predictor(device, prompt_tokens=wish.prompt_tokens, context=wish.context)
    found = (_deepest(template, predictor, limits, wish) for template in templates(wish))
    return frontier(shape for shape in found if shape is not None)


def templates(wish: Wish) -> Iterator[ModelSpec]:
    """Every shape of the grid with the fewest layers it may have."""
    for hidden in WIDTHS:
        head_dim = 64 if hidden < 2048 else 128
        heads = hidden // head_dim
        for group in (g for g in GROUPS if heads % g == 0):
            for ratio in FFN_RATIOS:
                ffn = -(-round(hidden * ratio) // FFN_STEP) * FFN_STEP
                yield ModelSpec(
                    id=f"{hidden}-{heads}-{heads // group}-{ffn}", family="llama",
                    layers=stored_layers(hidden, wish)[0], layer_repeats=wish.layer_repeats,
                    hidden=hidden, intermediate=ffn, heads=heads, kv_heads=heads // group,
                    head_dim=head_dim, vocab=wish.vocab, tied=wish.tied, context=wish.context,
                    norm_eps=1e-5, rope_theta=10000.0,
                )  # fmt: skip


def stored_layers(hidden: int, wish: Wish) -> tuple[int, int]:
    """Fewest and most stored layers of a decoder of this width."""
    widest = 48 if hidden <= DEEP_UP_TO else 128
    return -(-hidden // (widest * wish.layer_repeats)), hidden // (16 * wish.layer_repeats)


def _deepest(template: ModelSpec, predictor: Predictor, limits: Budget, wish: Wish) -> Shape | None:
    """The template with the most layers that pass."""

    def shape(layers: int) -> Shape:
        name = f"{layers}-layers-{template.id}"
        spec = template.model_copy(update={"id": name, "layers": layers})
        prediction = predictor.predict(spec, wish.recipe, wish.file_format)
        return Shape(spec, prediction, verdict(candidate_of(prediction), limits))

    most = largest(lambda n: shape(n).verdict.passes, *stored_layers(template.hidden, wish))
    return None if most is None else shape(most)


def frontier(shapes: Iterable[Shape]) -> list[Shape]:
    """Those that no other one beats in parameters and decode rate, most parameters first; of equals
    the smaller file, then the deeper one."""
    order = sorted(
        shapes,
        key=lambda s: (
            -s.spec.body_parameters, -s.rate, s.prediction.file_bytes, -s.spec.executed_layers,
        ),
    )  # fmt: skip
    found: list[Shape] = []
    for shape in order:
        if not found or shape.rate > found[-1].rate:
            found.append(shape)
    return found


def config_of(spec: ModelSpec) -> dict[str, Any]:
    """The `config.json` of a shape in Hugging Face's form: Llama's, or MobileLLM's if shared."""
    shared = spec.layer_repeats == 2
    config: dict[str, Any] = {
        "architectures": ["MobileLLMForCausalLM" if shared else "LlamaForCausalLM"],
        "model_type": "mobilellm" if shared else "llama",
        "hidden_act": "silu",
        "vocab_size": spec.vocab,
        "hidden_size": spec.hidden,
        "intermediate_size": spec.intermediate,
        "num_hidden_layers": spec.layers,
        "num_attention_heads": spec.heads,
        "num_key_value_heads": spec.kv_heads,
        "head_dim": spec.head_dim,
        "max_position_embeddings": spec.context,
        "rms_norm_eps": spec.norm_eps,
        "rope_theta": spec.rope_theta,
        "tie_word_embeddings": spec.tied,
        "attention_bias": False,
        "mlp_bias": False,
    }
    return config | ({"layer_sharing": True, "share_embedding": spec.tied} if shared else {})
