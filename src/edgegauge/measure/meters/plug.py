"""Smart plugs on the local network: power at the wall, asked for once a second over HTTP.

    --meter shelly:192.168.1.20      Shelly, all generations
    --meter tasmota:plug.lan:8080    Tasmota

A plug sees the device and the loss of its power supply, is not calibrated, and is poor below 5 W.
Power is the source; the plug's own energy total, in Wh (Shelly Gen2+), watt-minutes (Gen1) or kWh
(Tasmota), only checks it: it moves in coarse steps. The check runs from one step to a later one.

A request that fails is a gap, and five in a row lose the meter. A whole request takes two seconds
at most, an answer has 64 KiB at most, and redirects are not followed.

Formats: shelly-api-docs.shelly.cloud (Switch, PM1, Gen1 /status), tasmota.github.io/docs
(`Status 8`, WattRes, EnergyRes).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgegauge.energy import MeterFacts
from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Flag, Meter, MeterUnusable, Reading
from edgegauge.measure.meters.misses import Misses

TIMEOUT_S = 2.0
MAX_ANSWER_BYTES = 64 * 1024
MAX_MISSED = 5
MAX_W = 10_000.0
POOR_BELOW_W = 5.0
CHECKED_AFTER_S = 60.0
AGREES_WITHIN = 0.10
WH_J = 3600.0
ADDRESS = re.compile(
    r"(?:http://)?([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?/?"
)

Answer = tuple[float, float | None]
"""Watts, and joules since the plug began to count."""


class NoAnswer(Exception):
    """A request that failed; the text says how."""


def gen2(document: Any) -> Answer:
    """`Switch.GetStatus` and `PM1.GetStatus`: `apower` W, `aenergy.total` Wh."""
    total = document.get("aenergy")
    return _number(document["apower"]), _joules(total and total.get("total"), WH_J)


def gen1(document: Any) -> Answer:
    """`/status`: `meters[0].power` W, `total` watt-minutes."""
    meter = document["meters"][0]
    if meter.get("is_valid") is False:
        raise ValueError("it says is_valid = false")
    return _number(meter["power"]), _joules(meter.get("total"), 60.0)


def tasmota(document: Any) -> Answer:
    """`Status 8`: `StatusSNS.ENERGY.Power` W, `Total` kWh."""
    energy = document["StatusSNS"]["ENERGY"]
    return _number(energy["Power"]), _joules(energy.get("Total"), 1000 * WH_J)


@dataclass(frozen=True, slots=True)
class Dialect:
    """A question and how to read the answer."""

    path: str
    parse: Callable[[Any], Answer]
    quantum_w: float


SHELLY = (
    Dialect("/rpc/Switch.GetStatus?id=0", gen2, 0.1),
    Dialect("/rpc/PM1.GetStatus?id=0", gen2, 0.1),
    Dialect("/status", gen1, 0.01),
)
TASMOTA = (Dialect("/cm?cmnd=Status%208", tasmota, 1.0),)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("its power is not a number")
    if not 0 <= value <= MAX_W or not math.isfinite(value):
        raise ValueError(f"its power is {value:g} W")
    return float(value)


def _joules(value: Any, unit_j: float) -> float | None:
    """An energy total in joules; None where there is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        return None
    return float(value) * unit_j


def ask(host: str, port: int, dialect: Dialect, timeout_s: float | None = None) -> Answer:
    """One answer of the plug; NoAnswer with the reason otherwise."""
    timeout_s = TIMEOUT_S if timeout_s is None else timeout_s
    try:
        return dialect.parse(json.loads(_get(host, port, dialect.path, timeout_s)))
    except (ValueError, RecursionError) as error:
        raise NoAnswer(f"its answer makes no sense ({str(error)[:80]})") from None
    except (LookupError, TypeError, AttributeError):
        raise NoAnswer(f"its answer to {dialect.path} holds no power") from None


def _get(host: str, port: int, path: str, timeout_s: float) -> bytes:
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    late = threading.Event()
    try:
        connection.connect()
        # The socket's timeout is for each piece; the timer is for all of a request that drips.
        timer = threading.Timer(timeout_s, _cut, (connection.sock, late))
        timer.daemon = True
        timer.start()
        try:
            connection.request("GET", path, headers={"Accept": "application/json"})
            answer = connection.getresponse()
            body = answer.read(MAX_ANSWER_BYTES + 1)
        finally:
            timer.cancel()
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise NoAnswer(f"no answer ({str(error)[:80] or type(error).__name__})") from None
    finally:
        connection.close()
    if late.is_set():
        raise NoAnswer(f"no answer (not all of it within {timeout_s:g} s)")
    if answer.status in (401, 403):
        raise NoAnswer("it asks for a password, which is not supported: switch that off")
    if answer.status != 200:
        raise NoAnswer(f"it answered {path} with HTTP status {answer.status}")
    if len(body) > MAX_ANSWER_BYTES:
        raise NoAnswer("its answer is too long to be one")
    return body


def _cut(connected: socket.socket, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


class PlugMeter:
    """One plug; power is what it returns, its energy total is kept to check that."""

    poll_s = 1.0

    def __init__(
        self, facts: MeterFacts, machine: Machine, host: str, port: int, dialect: Dialect
    ) -> None:
        self.facts = facts
        self._clock = machine.clock
        self._to = (host, port, dialect)
        self._misses = Misses(MAX_MISSED)
        self._last: Reading | None = None
        self._joules = 0.0
        self._total: float | None = None
        self._steps: list[tuple[float, float, float]] = []
        self._mean_w, self._count = 0.0, 0

    def read(self) -> Reading | None:
        """Watts at the wall; None after a request that failed, MeterLost after five in a row."""
        before = self._clock.now_s()
        try:
            power, total = ask(*self._to)
        except NoAnswer as error:
            self._misses.missed(f"{self.facts.read_from}: {error}")
            return None
        after = self._clock.now_s()
        self._misses.seen()
        reading = Reading((before + after) / 2, power, took_s=after - before)
        if self._last is not None:
            self._joules += (power + self._last.value) / 2 * (reading.t_s - self._last.t_s)
        self._last = reading
        self._count += 1
        self._mean_w += (power - self._mean_w) / self._count
        self._note_total(reading.t_s, total)
        return reading

    def _note_total(self, t_s: float, total: float | None) -> None:
        """Keep the first and the last step of the total; one that falls was reset."""
        if total is None or (self._total is not None and total < self._total):
            self._steps.clear()
        elif self._total is not None and total > self._total:
            self._steps[1:] = [(t_s, total, self._joules)]
        self._total = total

    def flags(self) -> list[Flag]:
        """Gaps, low power, and a total that disagrees."""
        found = []
        if self._misses.all:
            found.append(Flag(f"{self._misses.all} requests to the plug failed"))
        if self._count and self._mean_w < POOR_BELOW_W:
            found.append(
                Flag(f"{self._mean_w:.1f} W on average: plugs are poor below {POOR_BELOW_W:.0f} W")
            )
        steps = list(self._steps)  # the reading thread may clear them meanwhile
        if len(steps) == 2:
            (start_s, first, before), (end_s, last, after) = steps
            own, ours = last - first, after - before
            if end_s - start_s >= CHECKED_AFTER_S and abs(ours - own) > AGREES_WITHIN * own:
                found.append(
                    Flag(f"the plug counted {own:.0f} J where its power gives {ours:.0f} J")
                )
        return found

    def close(self) -> None:
        """Nothing is held open."""


def _find(name: str, dialects: tuple[Dialect, ...], machine: Machine, address: str | None) -> Meter:
    if not address:
        raise MeterUnusable(f"give its address: --meter {name}:192.168.1.20")
    match = ADDRESS.fullmatch(address)
    port = int((match and match[2]) or 80)
    if match is None or not 0 < port < 65536:
        raise MeterUnusable(f"{address!r} is not HOST or HOST:PORT (http only, no path)")
    host = match[1].strip("[]")
    reasons: list[str] = []
    for dialect in dialects:
        try:
            power, _ = ask(host, port, dialect)
        except NoAnswer as error:
            reasons.append(str(error))
            continue
        facts = _facts(name, f"http://{match[1]}:{port}{dialect.path}", dialect, power)
        return PlugMeter(facts, machine, host, port, dialect)
    raise MeterUnusable(f"{address}: {'; '.join(dict.fromkeys(reasons))}")


def _facts(name: str, url: str, dialect: Dialect, power: float) -> MeterFacts:
    """Facts of a plug; one that showed a decimal has WattRes above 0."""
    return MeterFacts(
        meter=name,
        id=f"{name}:{url.split('/')[2]}",
        read_from=url,
        unit="W",
        counter=False,
        update_period_s=1.0,
        quantum=dialect.quantum_w if power == round(power) else min(dialect.quantum_w, 0.1),
        calibration_share=0.1,
        calibration="none: makers of plugs ask for a calibration of each; 10 % assumed",
        grade="C",
        whole_device=True,
        covers=["the whole device, at the wall", "loss of the power supply"],
        excludes=[],
    )


class ShellyKind:
    """A Shelly plug or meter: Gen2 and later, then Gen1."""

    name = "shelly"

    def find(self, machine: Machine, address: str | None) -> list[Meter]:
        """The plug at `address` (HOST[:PORT]); MeterUnusable without one, or where none answers."""
        return [_find(self.name, SHELLY, machine, address)]


class TasmotaKind:
    """A plug that runs Tasmota."""

    name = "tasmota"

    def find(self, machine: Machine, address: str | None) -> list[Meter]:
        """The plug at `address` (HOST[:PORT]); MeterUnusable without one, or where none answers."""
        return [_find(self.name, TASMOTA, machine, address)]
