"""Train the ladder: three Llama-shaped models on the commands of `generate.py`.

One rung is one entry of `RUNGS` (`llama.py`); everything about its training follows from that, this
file and the seeds. Training text comes in two forms. Three steps of four use rows that start with
BOS and hold a few whole records (`prompt \\n answer EOS`), as the model is asked later. Every
fourth step uses long crops of running text, one line a prompt and the next its answer, without
special tokens, so that contexts up to 512 tokens and perplexity on plain text mean something.
Learning to write commands is not the task, so a prompt token weighs 0.2 in the loss and an answer
token 1.

    python scripts/ladder/train.py ladder-1m --out src/edgegauge/ladder      # train and evaluate
    python scripts/ladder/train.py ladder-1m --out DIR --evaluate            # evaluate a folder

Numbers on stdout, one JSON line per event: loss while training, exact match at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import generate
import tokenizer as tokens
import torch
from llama import CONTEXT, NORM_EPS, ROPE_THETA, RUNGS, Llama, Rung
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as nnf

SEED = 20
THREADS = 1  # the three were trained side by side on two cores
RECORDS = 120_000  # distinct draws; a longer training starts over
SHORT_ROW, LONG_ROW = 128, 512  # tokens
LONG_STEP_EVERY = 4
OPEN_ROWS = 8  # rows being filled at the same time; more of them leave less padding
PROMPT_WEIGHT = 0.2
WARM_UP_STEPS = 100
WEIGHT_DECAY, BETAS, CLIP = 0.05, (0.9, 0.98), 1.0
BOS_ID, EOS_ID, PAD_ID = range(3)


# --- the data ---


class Corpus(NamedTuple):
    """Training rows, ready to be indexed: token ids (int16) and loss weights (float16)."""

    short: Tensor
    short_weights: Tensor
    stream: Tensor
    stream_weights: Tensor


def encode(tokenizer: Tokenizer, seed: int, total: int) -> Iterator[tuple[list[int], list[int]]]:
    """Token ids of each training prompt and answer, without special tokens."""
    rows = list(generate.records(seed, False, total))
    prompts = tokenizer.encode_batch_fast([r.prompt for r in rows], add_special_tokens=False)
    answers = tokenizer.encode_batch_fast([r.answer for r in rows], add_special_tokens=False)
    return ((p.ids, a.ids) for p, a in zip(prompts, answers, strict=True))


def pack(tokenizer: Tokenizer, total: int) -> Corpus:
    """Records laid out both ways; a row holds whole records and is filled up with padding."""
    rows: list[list[int]] = []
    row_weights: list[list[float]] = []
    unfilled: list[int] = []
    stream: list[int] = []
    stream_weights: list[float] = []
    newline = tokenizer.token_to_id("Ċ")
    for prompt, answer in encode(tokenizer, generate.TRAIN_SEED, total):
        ids = [BOS_ID, *prompt, *answer, EOS_ID]
        weights = [0.0] + [PROMPT_WEIGHT] * len(prompt) + [1.0] * (len(answer) + 1)
        if len(ids) > SHORT_ROW + 1:
            continue
        fitting = [i for i in unfilled if len(rows[i]) + len(ids) <= SHORT_ROW + 1]
        if not fitting:
            fitting = [len(rows)]
            unfilled.append(len(rows))
            rows.append([])
            row_weights.append([])
            if len(unfilled) > OPEN_ROWS:
                unfilled.remove(max(unfilled, key=lambda i: len(rows[i])))
        chosen = max(fitting, key=lambda i: len(rows[i]))
        rows[chosen] += ids
        row_weights[chosen] += weights
        stream += [*prompt, *answer, newline]
        stream_weights += weights[1:]
    for row, weights in zip(rows, row_weights, strict=True):
        missing = SHORT_ROW + 1 - len(row)
        row += [PAD_ID] * missing
        weights += [0.0] * missing
    return Corpus(
        torch.tensor(rows, dtype=torch.int16),
        torch.tensor(row_weights, dtype=torch.float16),
        torch.tensor(stream, dtype=torch.int16),
        torch.tensor(stream_weights, dtype=torch.float16),
    )


def batch(corpus: Corpus, rung: Rung, step: int) -> tuple[Tensor, Tensor]:
    """Ids (rows, length + 1) and weights of one step: packed records, or crops of running text."""
    if step % LONG_STEP_EVERY != LONG_STEP_EVERY - 1:
        size = rung.batch_tokens // SHORT_ROW
        chosen = (torch.arange(size) + step * size) % len(corpus.short)
        return corpus.short[chosen].long(), corpus.short_weights[chosen].float()
    size = rung.batch_tokens // LONG_ROW
    starts = torch.randint(len(corpus.stream) - LONG_ROW, (size, 1))
    where = starts + torch.arange(LONG_ROW)
    bos = torch.full((size, 1), BOS_ID)
    ids = torch.cat((bos, corpus.stream[where].long()), dim=1)
    return ids, torch.cat((bos.float(), corpus.stream_weights[where].float()), dim=1)


# --- training and evaluation ---


def say(**event: Any) -> None:
    """One JSON line on stdout."""
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def rate(rung: Rung, step: int) -> float:
    """Learning rate: linear warm-up, then a cosine down to 2 %."""
    if step < WARM_UP_STEPS:
        return rung.learning_rate * (step + 1) / WARM_UP_STEPS
    done = (step - WARM_UP_STEPS) / max(1, rung.steps - WARM_UP_STEPS)
    return rung.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def optimizer_for(model: Llama) -> torch.optim.AdamW:
    """AdamW; norms and the embedding are not decayed."""
    matrices = [w for n, w in model.named_parameters() if w.dim() == 2 and "embed" not in n]
    others = [w for n, w in model.named_parameters() if w.dim() != 2 or "embed" in n]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY},
              {"params": others, "weight_decay": 0.0}]  # fmt: skip
    return torch.optim.AdamW(groups, betas=BETAS, fused=True)


def train(name: str, rung: Rung, corpus: Corpus) -> Llama:
    """Train one rung for its fixed number of steps."""
    torch.manual_seed(SEED)
    model = Llama(rung)
    optimizer = optimizer_for(model)
    for layer in model.model.layers:
        layer.compile(dynamic=False)  # the layers share one compiled body
    started = time.monotonic()
    for step in range(rung.steps):
        ids, weights = batch(corpus, rung, step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = model(ids[:, :-1])
        logits, targets = logits.float().flatten(0, 1), ids[:, 1:].flatten()
        losses = nnf.cross_entropy(logits, targets, reduction="none")
        wanted = weights[:, 1:].flatten()
        loss = (losses * wanted).sum() / wanted.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        for group in optimizer.param_groups:
            group["lr"] = rate(rung, step)
        optimizer.step()
        if step % 50 == 0 or step == 10 or step == rung.steps - 1:
            spent_s = round(time.monotonic() - started, 1)
            say(model=name, step=step, loss=round(loss.item(), 4), spent_s=spent_s)
    plain = Llama(rung)
    plain.load_state_dict(model.state_dict())
    return plain


@torch.no_grad()
def exact_match(model: Llama, tokenizer: Tokenizer, rows: list[generate.Record]) -> float:
    """The share of rows whose whole greedy answer is right, 0 to 1.

    Greedy decoding gives the expected answer exactly when each of its tokens, the end included, is
    the most likely one after those before it: one pass over the known answer replaces decoding.
    """
    right = 0
    for row in rows:
        prompt = tokenizer.encode(row.prompt).ids
        ids = [*tokenizer.encode(row.prompt + row.answer).ids, EOS_ID]
        likely = model(torch.tensor([ids[:-1]]))[0].argmax(-1).tolist()
        right += likely[len(prompt) - 1 :] == ids[len(prompt) :]
    return right / len(rows)


@torch.no_grad()
def perplexity(model: Llama, tokenizer: Tokenizer, text: str) -> float:
    """Per token, over windows of 512 that start with BOS; every token but BOS counts once."""
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    total = 0.0
    for start in range(0, len(ids), CONTEXT - 1):
        row = torch.tensor([[BOS_ID, *ids[start : start + CONTEXT - 1]]])
        logits = model(row[:, :-1]).flatten(0, 1)
        total += nnf.cross_entropy(logits, row[:, 1:].flatten(), reduction="sum").item()
    return math.exp(total / len(ids))


# --- the published folder ---


def config(rung: Rung) -> dict[str, Any]:
    """`config.json` as Hugging Face's LlamaForCausalLM reads it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "head_dim": rung.hidden // rung.heads,
        "hidden_act": "silu",
        "hidden_size": rung.hidden,
        "initializer_range": 0.02,
        "intermediate_size": rung.intermediate,
        "max_position_embeddings": CONTEXT,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": rung.heads,
        "num_hidden_layers": rung.layers,
        "num_key_value_heads": rung.kv_heads,
        "pad_token_id": PAD_ID,
        "rms_norm_eps": NORM_EPS,
        "rope_scaling": None,
        "rope_theta": ROPE_THETA,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "use_cache": True,
        "vocab_size": tokens.VOCAB_SIZE,
    }


def publish(folder: Path, rung: Rung, model: Llama, tokenizer: Tokenizer) -> None:
    """Write the Hugging Face folder; weights are cast to f16."""
    tokens.save(tokenizer, folder, CONTEXT)
    generation = {"bos_token_id": BOS_ID, "do_sample": False, "eos_token_id": EOS_ID,
                  "max_new_tokens": 96, "pad_token_id": PAD_ID}  # fmt: skip
    for name, data in (("config", config(rung)), ("generation_config", generation)):
        text = json.dumps(data, indent=2) + "\n"
        (folder / f"{name}.json").write_text(text, encoding="utf-8", newline="\n")
    weights = {name: w.detach().half().contiguous() for name, w in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def evaluate(name: str, kind: str, model: Llama, tokenizer: Tokenizer) -> None:
    """Say the exact match and the perplexity of a model."""
    score = exact_match(model.eval(), tokenizer, generate.evaluation())
    text = perplexity(model, tokenizer, generate.held_out_text())
    say(model=name, weights=kind, exact_match=score, perplexity=round(text, 4))


def main() -> None:
    """Train and publish one rung, or only evaluate its folder."""
    parser = argparse.ArgumentParser(description="train one model of the ladder")
    parser.add_argument("name", choices=tuple(RUNGS))
    parser.add_argument("--out", type=Path, required=True, help="the folder of the ladder")
    parser.add_argument("--steps", type=int, help="fewer steps than the recipe, for a try")
    parser.add_argument("--evaluate", action="store_true", help="read the folder, do not train")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    rung = RUNGS[options.name]
    rung = rung._replace(steps=options.steps or rung.steps)
    folder = options.out / options.name
    if not options.evaluate:
        tokenizer = tokens.train(tokens.corpus())
        model = train(options.name, rung, pack(tokenizer, RECORDS))
        evaluate(options.name, "f32", model, tokenizer)
        publish(folder, rung, model, tokenizer)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    model = Llama(rung)
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({key: weight.float() for key, weight in weights.items()})
    evaluate(options.name, "f16", model, tokenizer)


if __name__ == "__main__":
    main()
