"""Engines: other projects' converters, for architectures that ours do not know.

    engine = find_engine("genai")
    engine.file_format, list(engine.facts.recipes)       # "onnx", ["f32", "int8", "int4"]

An engine is a folder here: `engine.toml` says what it writes, `requirements.txt` pins every package
that it needs, and `driver.py` is executed by the Python of an environment that holds just these
(`environment.py`). The driver is called with the path of a JSON file

    {"model": FOLDER, "output": FOLDER, "name": "<model>-<recipe>-<engine>.<format>",
     "precision": the engine's own word for the recipe, "answer": FILE, "compare": true}

leaves every file of the artifact in `output`, the main one under `name`, and writes to `answer`
`{"tensor_bytes": N, "agreement": {...} | null}`. It is told to stay offline, and never executes
code that comes with a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from edgegauge.document import Document, read_toml
from edgegauge.errors import InputError

FOLDER = Path(__file__).parent
FACTS = "engine.toml"


class EngineFacts(Document):
    """What `engine.toml` says."""

    about: str
    file_format: Literal["onnx", "tflite"]
    recipes: dict[str, str] = Field(min_length=1)
    """Our name of a recipe: the engine's."""
    tools: list[str] = Field(min_length=1)
    """Distributions whose versions the manifest names."""
    disk_bytes: int = Field(ge=0)
    """What the environment takes, with the smallest packages that its requirements allow."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A converter of another project: its name, the folder it is defined in, and its facts."""

    name: str
    folder: Path
    facts: EngineFacts

    @property
    def requirements(self) -> Path:
        """The file that pins its packages."""
        return self.folder / "requirements.txt"

    @property
    def driver(self) -> Path:
        """The script that its environment's Python executes."""
        return self.folder / "driver.py"

    def precision(self, recipe: str, file_format: str) -> str:
        """Its own word for this recipe; InputError where it writes another format or has it not."""
        facts = self.facts
        if file_format != facts.file_format:
            raise InputError(
                f"the engine {self.name} writes {facts.file_format}, not {file_format}",
                hint=f"add --format {facts.file_format}",
            )
        if recipe.lower() not in facts.recipes:
            raise InputError(
                f"the engine {self.name} has no recipe {recipe!r};"
                f" there are: {', '.join(facts.recipes)}"
            )
        return facts.recipes[recipe.lower()]


def engines() -> dict[str, Engine]:
    """Every engine by name."""
    files = sorted(FOLDER.glob(f"*/{FACTS}"))
    return {
        f.parent.name: Engine(f.parent.name, f.parent, read_toml(f, EngineFacts)) for f in files
    }


def find_engine(name: str) -> Engine:
    """The engine of this name; InputError with those there are."""
    known = engines()
    if name not in known:
        raise InputError(f"no engine {name!r}; there are: {', '.join(known)}")
    return known[name]
