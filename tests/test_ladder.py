"""The ladder: its generator, its split, and the folders that are shipped. No torch here."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgegauge import ladder

SCRIPTS = Path(__file__).parents[1] / "scripts" / "ladder"
BUDGET_BYTES = 12_000_000
SAMPLE = 4000


@pytest.fixture(scope="module")
def generate() -> Iterator[ModuleType]:
    """The data generator, imported by path with its folder importable as for a script."""
    before = set(sys.modules)
    sys.path.insert(0, str(SCRIPTS))
    try:
        spec = importlib.util.spec_from_file_location("ladder_generate", SCRIPTS / "generate.py")
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(SCRIPTS))
        for name in set(sys.modules) - before & {"phrases", "slots"}:
            sys.modules.pop(name, None)


def evaluation() -> list[dict[str, str]]:
    text = (ladder.path() / "evaluation.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def config(model: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((ladder.path() / model / "config.json").read_text())
    return data


# --- the task ---


def test_a_seed_gives_the_same_records_every_time(generate: ModuleType) -> None:
    assert list(generate.records(7, False, 200)) == list(generate.records(7, False, 200))
    assert list(generate.records(7, False, 200)) != list(generate.records(8, False, 200))


def test_the_published_files_are_what_the_generator_writes(generate: ModuleType) -> None:
    assert [row._asdict() for row in generate.evaluation()] == evaluation()
    text = (ladder.path() / "heldout.txt").read_bytes().decode()
    assert text == generate.held_out_text()


def test_training_and_held_out_share_no_prompt_and_no_intent(generate: ModuleType) -> None:
    training = list(generate.records(generate.TRAIN_SEED, False, SAMPLE))
    held_out = [generate.Record(**row) for row in evaluation()]
    assert not {row.prompt for row in training} & {row.prompt for row in held_out}
    for row in training:
        assert not any(map(generate.is_held_out, row.answer.split(" ; "))), row
    for row in held_out:
        assert all(map(generate.is_held_out, row.answer.split(" ; "))), row


def test_the_split_does_not_depend_on_the_order_of_two_rooms(generate: ModuleType) -> None:
    for rooms in ("attic,kitchen", "office,garage", "bedroom,library", "landing,laundry"):
        one, two = rooms.split(",")
        turned = generate.is_held_out(f"light.on room={two},{one}")
        assert generate.is_held_out(f"light.on room={rooms}") == turned


def test_every_answer_follows_the_grammar_and_names_each_slot_once(generate: ModuleType) -> None:
    rows = [*generate.records(generate.TRAIN_SEED, False, SAMPLE), *generate.evaluation()]
    for row in rows:
        assert generate.ANSWER.fullmatch(row.answer), row.answer
        for intent in row.answer.split(" ; "):
            keys = [slot.partition("=")[0] for slot in intent.split(" ")[1:]]
            assert len(keys) == len(set(keys)), row.answer


def test_every_prompt_is_one_lower_case_line(generate: ModuleType) -> None:
    for row in generate.records(3, False, SAMPLE):
        assert row.prompt.count("\n") == 1 and row.prompt.endswith("\n")
        assert "  " not in row.prompt and row.prompt == row.prompt.lower()
        assert row.prompt.isascii() and row.answer.isascii()


def test_one_sentence_never_has_two_meanings(generate: ModuleType) -> None:
    known: dict[str, str] = {}
    for row in generate.records(5, False, 3 * SAMPLE):
        assert known.setdefault(row.prompt, row.answer) == row.answer, row.prompt


def test_every_verb_with_enough_meanings_is_asked(generate: ModuleType) -> None:
    asked = {intent.split(" ")[0] for row in evaluation() for intent in row["answer"].split(" ; ")}
    verbs = {form.verb for form in generate.FORMS}
    # It has eight meanings, one a door, and chance put none of them into the held-out eighth.
    assert verbs - asked == {"query.lock"}


@pytest.mark.parametrize(
    ("hour", "minute", "said"),
    [
        (21, 15, "quarter past nine "),
        (23, 45, "quarter to twelve "),
        (0, 30, "half past twelve at night"),
        (17, 40, "twenty to six in the afternoon"),
        (11, 35, "twenty five to twelve in the morning"),
        (8, 0, "eight o'clock in the morning"),
    ],
)
def test_times_are_said_as_people_say_them(
    generate: ModuleType, hour: int, minute: int, said: str
) -> None:
    assert generate.slots.idiom_time(generate.random.Random(1), hour, minute).startswith(said)


def test_a_typing_error_leaves_numbers_and_copied_words_alone(generate: ModuleType) -> None:
    text, answer = "remind me to clean the gutters in fourteen minutes", "text=clean_the_gutters"
    for seed in range(300):
        typed = generate.mistype(generate.random.Random(seed), text, answer).split(" ")
        same = [word for word in text.split(" ") if word not in ("remind", "minutes")]
        assert [word for word in typed if word in same] == same


# --- the shipped folders ---


@pytest.mark.parametrize("model", ladder.MODELS)
def test_weights_have_the_shapes_of_the_config(model: str) -> None:
    safetensors = pytest.importorskip("safetensors")
    facts = config(model)
    hidden, inner = facts["hidden_size"], facts["intermediate_size"]
    keys = facts["num_key_value_heads"] * facts["head_dim"]
    expected = {"model.embed_tokens.weight": [facts["vocab_size"], hidden]}
    expected["model.norm.weight"] = [hidden]
    for layer in range(facts["num_hidden_layers"]):
        expected |= {
            f"model.layers.{layer}.{name}.weight": shape
            for name, shape in {
                "input_layernorm": [hidden],
                "post_attention_layernorm": [hidden],
                "self_attn.q_proj": [facts["num_attention_heads"] * facts["head_dim"], hidden],
                "self_attn.k_proj": [keys, hidden],
                "self_attn.v_proj": [keys, hidden],
                "self_attn.o_proj": [hidden, facts["num_attention_heads"] * facts["head_dim"]],
                "mlp.gate_proj": [inner, hidden],
                "mlp.up_proj": [inner, hidden],
                "mlp.down_proj": [hidden, inner],
            }.items()
        }
    weights = str(ladder.path() / model / "model.safetensors")
    with safetensors.safe_open(weights, framework="np") as file:
        found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        assert {name: part.get_shape() for name, part in found.items()} == expected
        assert {part.get_dtype() for part in found.values()} == {"F16"}


def test_the_rungs_grow_about_fourfold_and_fit_the_budget() -> None:
    sizes = [(ladder.path() / name / "model.safetensors").stat().st_size for name in ladder.MODELS]
    assert all(3 < large / small < 6 for small, large in pairwise(sizes))
    files = [file for file in ladder.path().rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < BUDGET_BYTES


@pytest.mark.parametrize("model", ladder.MODELS)
def test_every_width_can_be_quantised_in_blocks_of_32(model: str) -> None:
    facts = config(model)
    keys = facts["num_key_value_heads"] * facts["head_dim"]
    for width in (facts["hidden_size"], facts["intermediate_size"], keys, facts["vocab_size"]):
        assert width % 32 == 0


def test_the_largest_model_takes_k_quants() -> None:
    facts = config(ladder.MODELS[-1])
    assert facts["hidden_size"] % 256 == 0 and facts["intermediate_size"] % 256 == 0


# --- the tokenizer ---


def tokenizer(model: str) -> Any:
    library = pytest.importorskip("tokenizers")
    return library.Tokenizer.from_file(str(ladder.path() / model / "tokenizer.json"))


def test_the_models_share_one_tokenizer() -> None:
    texts = {(ladder.path() / name / "tokenizer.json").read_bytes() for name in ladder.MODELS}
    assert len(texts) == 1


def test_prompts_and_answers_survive_the_tokenizer() -> None:
    coder = tokenizer(ladder.MODELS[0])
    for row in evaluation():
        text = row["prompt"] + row["answer"]
        whole, prompt = coder.encode(text).ids, coder.encode(row["prompt"]).ids
        assert coder.decode(whole) == text
        assert whole[0] == 0, "BOS comes first"
        assert whole[: len(prompt)] == prompt, "a prompt is a prefix of prompt and answer"


@pytest.mark.parametrize("model", ladder.MODELS)
def test_special_tokens_have_the_ids_of_the_config(model: str) -> None:
    coder, facts = tokenizer(model), config(model)
    assert coder.get_vocab_size() == facts["vocab_size"]
    for name in ("bos", "eos", "pad"):
        assert coder.token_to_id(f"<|{name}|>") == facts[f"{name}_token_id"]
