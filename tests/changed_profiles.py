"""Catalog models, and shipped profiles with something changed, for tests of predictions."""

from __future__ import annotations

from typing import Any

from edgegauge import catalog
from edgegauge.device import DeviceProfile
from edgegauge.model import ModelSpec


def spec_of(model: str) -> ModelSpec:
    """A model of the catalog."""
    return catalog.load()[model].spec


def changed(profile: DeviceProfile, **parts: Any) -> DeviceProfile:
    """The profile with new values at paths such as `memory__app_gb__value`."""
    value = profile.model_dump()
    for path, new in parts.items():
        *above, last = path.split("__")
        inner = value
        for key in above:
            inner = inner[key]
        inner[last] = new
    return DeviceProfile.model_validate(value)
