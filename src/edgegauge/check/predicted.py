"""A subject against a budget on a device that is not here.

    judged = predicted_verdict(subject, load("raspberry-pi-5-8gb"), Budget(decode_tok_per_s=10))
    judged.passes, explain(judged)

The size is that of the artifact where there is one; everything else is predicted for its spec and
for how it is stored, and unknown where it has neither. Memory is limited by the device at least.
"""

from __future__ import annotations

from edgegauge.budget import Budget
from edgegauge.check.subject import Subject
from edgegauge.choose import Candidate, Verdict, verdict
from edgegauge.device import DeviceProfile
from edgegauge.errors import InputError
from edgegauge.figure import Figure
from edgegauge.fit import candidate_of, within_device
from edgegauge.predict import DEFAULT_CONTEXT, DEFAULT_PROMPT_TOKENS, Predictor


def predicted_verdict(
    subject: Subject,
    device: DeviceProfile,
    budget: Budget,
    *,
    prompt_tokens: int = DEFAULT_PROMPT_TOKENS,
    context: int | None = None,
) -> Verdict:
    """The subject on this device; `prompt_tokens` and `context` as `Predictor` takes them.

    Raises InputError for a context that the model or the file has no room for.
    """
    quality = subject.published(budget.quality.metric) if budget.quality else None
    candidate = _candidate(subject, device, quality, prompt_tokens, context)
    return verdict(candidate, within_device(budget, device))


def _candidate(
    subject: Subject,
    device: DeviceProfile,
    quality: Figure | None,
    prompt_tokens: int,
    context: int | None,
) -> Candidate:
    """The subject with what is known of it on the device."""
    if subject.spec is None:
        candidate = Candidate(
            model=subject.model, recipe=str(subject.recipe), format=subject.file_format,
            parameters=subject.parameters, file_bytes=subject.tensor_bytes,
            effective_bits=subject.effective_bits, figures={"quality": quality},
        )  # fmt: skip
    else:
        prompt_tokens, context = room_of(subject, prompt_tokens, context)
        predictor = Predictor(device, prompt_tokens=prompt_tokens, context=context)
        prediction = predictor.predict(subject.spec, subject.recipe, subject.file_format)
        candidate = candidate_of(prediction, quality)
    if subject.disk_bytes is None:
        return candidate
    return candidate._replace(file_bytes=subject.disk_bytes, on_disk=True)


def room_of(subject: Subject, prompt_tokens: int, context: int | None) -> tuple[int, int]:
    """Prompt and context in tokens that a subject with a spec is predicted with; InputError where
    its file has no room for them."""
    assert subject.spec is not None
    most = min(subject.spec.context, subject.context or subject.spec.context)
    if context is None:
        room = min(DEFAULT_CONTEXT, most)
        return min(prompt_tokens, room), room
    if context > most < subject.spec.context:
        raise InputError(
            f"{subject.name} has room for {most} tokens, {context} were asked for",
            hint="convert it again with a larger --context",
        )
    return prompt_tokens, context
