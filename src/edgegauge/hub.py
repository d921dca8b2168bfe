"""Models on the Hugging Face hub: fetches only the files that a conversion reads.

    fetch("hf:HuggingFaceTB/SmolLM2-135M")            # the snapshot's folder in the user's cache
    fetch("hf:owner/name@v1.0", weights=False)        # config and tokenizer alone

Files go to huggingface_hub's own cache, so what other tools fetched is not fetched again, and its
settings (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT) apply. Pickles are never fetched.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgegauge.errors import InputError, MissingDependency

HUB_PREFIX = "hf:"

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "modules.json",
    "*_Pooling/config.json",
)
WEIGHT_FILES = ("model*.safetensors", "model.safetensors.index.json")
"""Not `*.safetensors`: some repositories hold the same weights again under other names."""

_REFERENCE = re.compile(r"(?:hf:)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)


def parse_reference(reference: str) -> tuple[str, str | None]:
    """(owner/name, revision or None) of `hf:owner/name[@revision]`; InputError otherwise."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InputError(
            f"not a hub reference: {reference!r}", hint="write hf:owner/name[@revision]"
        )
    return match[1], match[2]


def fetch(reference: str, *, weights: bool = True) -> Path:
    """The folder with the files of a hub model, fetched where they are not yet here; InputError."""
    repo, revision = parse_reference(reference)
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise MissingDependency(f"fetching {reference}", "hub") from None
    patterns = [*SMALL_FILES, *(WEIGHT_FILES if weights else ())]
    # The hub's errors and those of its HTTP library, whichever that is, share these bases.
    known: tuple[type[Exception], ...] = (OSError, HFValidationError, *HfHubHTTPError.__bases__)
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except known as error:
        raise _explain(reference, error) from error
    if weights and not any(folder.glob("model*.safetensors")):
        raise InputError(
            f"{reference} has no model*.safetensors",
            hint="weights in pickles are never fetched; look for a converted copy on the hub",
        )
    return folder


def _explain(reference: str, error: Exception) -> InputError:
    """What the user can do about an error of the hub library."""
    repo, revision = parse_reference(reference)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in kinds:
        return InputError(
            f"{repo} is gated: its owner wants you to accept the licence first",
            hint=f"accept it at https://huggingface.co/{repo}, then: hf auth login",
        )
    if "RevisionNotFoundError" in kinds:
        return InputError(f"{repo} has no revision {revision!r}")
    if "RepositoryNotFoundError" in kinds:
        return InputError(
            f"the hub has no public model {repo!r}",
            hint="check the spelling; for a private model: hf auth login",
        )
    if kinds & {
        "LocalEntryNotFoundError",
        "ConnectionError",
        "ConnectError",
        "OfflineModeIsEnabled",
    }:
        return InputError(
            f"the hub cannot be reached, and {reference} is not in the cache",
            hint="check the network and HF_HUB_OFFLINE, or name a folder that has the model",
        )
    reason = str(error).strip().splitlines()
    return InputError(
        f"{reference} was not fetched: {reason[0] if reason else type(error).__name__}"
    )
