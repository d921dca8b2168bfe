"""What `edgegauge doctor` says of the engines: which environments are built, and their size."""

from __future__ import annotations

from collections.abc import Iterator

from edgegauge.engines import engines
from edgegauge.engines.environment import Built, state_of
from edgegauge.measure.checks import Check
from edgegauge.units import format_bytes


def engine_checks() -> Iterator[Check]:
    """One check for each engine; none being built is the usual state and no fault."""
    for name, engine in engines().items():
        state = state_of(engine)
        mend = f"rm -r {' '.join(map(str, state.older))}" if state.older else None
        if state.path is None:
            build = f"edgegauge convert MODEL --engine {name} --format {engine.facts.file_format}"
            size = format_bytes(engine.facts.disk_bytes)
            found = f"not built; takes {size} or more when it is first used{_older(state)}"
            yield Check(f"engine {name}", "absent", found, mend or build)
        else:
            found = f"{format_bytes(state.bytes)} in {state.path}{_older(state)}"
            yield Check(f"engine {name}", "ok", found, mend)


def _older(state: Built) -> str:
    return f"; {len(state.older)} of other versions, which nothing here uses" if state.older else ""
