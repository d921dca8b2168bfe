"""Taking values out of a foreign configuration and ending with a spec or with every problem.

    reader = ConfigReader(config, "llama", {"rms_norm_eps": 1e-6}, "config.json")
    reader.keys["layers"] = "num_hidden_layers"
    spec = reader.build(ModelSpec, {"layers": reader.get("num_hidden_layers"), ...})

Values are passed on as they are found; `build` checks types and ranges strictly and names the keys
of the file, not the fields of the spec.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError

from edgegauge.document import Document
from edgegauge.errors import InputError

Spec = TypeVar("Spec", bound=Document)


@dataclass(slots=True)
class ConfigReader:
    """Values of a configuration, the keys they came from, and every problem found on the way."""

    config: dict[str, Any]
    family: str
    defaults: Mapping[str, Any]
    where: str
    prefix: str
    problems: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)

    def get(self, key: str) -> Any:
        """The value of a key, or what transformers assumes where it is absent or null."""
        value = self.config.get(key)
        return self.defaults.get(key) if value is None else value

    def inherit(self, outer: Mapping[str, Any], *keys: str) -> None:
        """Take these keys from the enclosing table where the inner one lacks them."""
        self.config = {k: outer[k] for k in keys if k in outer} | self.config

    def problem(self, key: str, message: str) -> None:
        """Note that a key is wrong."""
        self.problems.append(f"{self.prefix}{key}: {message} @ {self.where}")

    def refuse(self, key: str, *, unless: tuple[Any, ...], why: str) -> None:
        """Note a problem unless the value is one of these."""
        value = self.get(key)
        if not any(value is u or (type(value) is type(u) and value == u) for u in unless):
            self.problem(key, f"{why}, got {shown(value)}")

    def number(self, key: str) -> float | None:
        """A usable number to calculate with; None, and a problem, where it is none."""
        value = self.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 2**53:
            return value
        self.problem(
            key,
            "required, but missing" if value is None else f"expected a number, got {shown(value)}",
        )
        return None

    def build(self, schema: type[Spec], fields: dict[str, Any]) -> Spec:
        """The spec of these fields; InputError with all problems, in the file's own key names."""
        try:
            spec = schema.model_validate(fields, strict=True)
        except ValidationError as error:
            for e in error.errors(include_url=False):
                path = [str(part) for part in e["loc"]] or ["(shape)"]
                key = ".".join([self.keys.get(path[0], path[0]), *path[1:]])
                if not any(p.startswith(f"{self.prefix}{key}:") for p in self.problems):
                    self.problem(key, _message(e))
        if self.problems:
            count = len(self.problems)
            noun = "problem" if count == 1 else "problems"
            raise InputError(f"{count} {noun} in {self.where}", self.problems)
        return spec


def _message(error: Any) -> str:
    """One of pydantic's findings as a phrase."""
    if error["input"] is None:
        return "required, but missing"
    text = str(error["msg"]).removeprefix("Value error, ").replace("Input should", "must", 1)
    got = "" if error["type"] == "value_error" else f", got {shown(error['input'])}"
    return f"{text}{got}"


_REPR = reprlib.Repr()
_REPR.maxstring = 100


def shown(value: Any) -> str:
    """A value from outside as bounded text, however long or deep it is."""
    try:
        return _REPR.repr(value)
    except ValueError:
        return "a number of thousands of digits"
