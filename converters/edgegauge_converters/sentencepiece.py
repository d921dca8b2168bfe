"""Scores for SentencePiece-style tokenizers, so that llama.cpp merges in the tokenizer's order.

llama.cpp joins two neighbours whenever their text is a token, highest score first, leftmost among
equals. `tokenizer.json` has a ranked list of allowed pairs instead. Converted from SentencePiece,
that list holds every split of every piece, best piece first, and both rules agree exactly when a
token's score is minus the rank of its pairs. Where the list is not of that kind they can disagree,
and this says so.
"""

from __future__ import annotations

from edgegauge_converters.tokenizer_file import TokenizerFile


def merge_scores(file: TokenizerFile, tokens: list[str]) -> tuple[list[float], list[str]]:
    """A score per token of `tokens` (by id), and warnings on tokens llama.cpp may merge otherwise.

    Ranks stay below 2**24, so float32 holds them exactly.
    """
    rank: dict[str, int] = {}
    odd = _unlisted_splits(file)
    previous = ""
    for index, (first, second) in enumerate(file.merges):
        made = first + second
        if made != previous and made in rank:
            odd.append(made)
        rank.setdefault(made, index)
        previous = made
    lowest = float(-len(file.merges) - 1)
    scores = [float(-rank[token]) if token in rank else lowest for token in tokens]
    if not odd:
        return scores, []
    return scores, [
        f"the merges of {len(set(odd))} tokens, such as {odd[0][:40]!r}, are not those of a "
        "SentencePiece model; llama.cpp may split words with them otherwise"
    ]


def _unlisted_splits(file: TokenizerFile) -> list[str]:
    """Tokens that are two tokens joined without being listed as their merge."""
    vocab, listed = file.vocab, set(file.merges)
    special = {token.content for token in file.added}
    special |= {f"<0x{byte:02X}>" for byte in range(256)}
    return [
        token
        for token in vocab
        if token not in special
        for cut in range(1, len(token))
        if token[:cut] in vocab
        and token[cut:] in vocab
        and (token[:cut], token[cut:]) not in listed
    ]
