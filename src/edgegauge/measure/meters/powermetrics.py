"""Apple's `powermetrics`: mean power of CPU, GPU and neural engine, one sample a second, as root.

The command runs for as long as the meter is open and prints one property list per sample, with a
NUL between two. Each sample says how long it really took (`elapsed_ns`); that, never the interval
that was asked for, is the span of its reading. Memory, display, storage and radios are not in it,
so this is a part of the device.

A process that dies, prints what is no sample, or falls silent loses the meter; nothing hangs.

Keys and units: `elapsed_ns`, `processor.{cpu,gpu,ane}_power` in mW; older systems give
`*_energy` in mJ instead. The manual, powermetrics(1), calls the values estimates that should not be
used to compare devices.
"""

from __future__ import annotations

import math
import os
import plistlib
import shutil
import subprocess
import tempfile
import threading
import time
from collections import deque
from xml.parsers.expat import ExpatError

from edgegauge.energy import MeterFacts
from edgegauge.host.tree import LIVE
from edgegauge.measure.machine import NANO, Clock, Machine
from edgegauge.measure.meters import Flag, Meter, MeterLost, MeterUnusable, Reading

COMMAND = ("powermetrics", "-s", "cpu_power,gpu_power,ane_power", "-i", "1000", "-b", "0")
"""`-b 0`: unbuffered, so that a sample arrives when it was taken."""

PARTS = ("cpu", "gpu", "ane")
END = b"</plist>"
MAX_SAMPLE_BYTES = 1024**2
MAX_WAITING = 10_000
FIRST_SAMPLE_S = 10.0
SILENCE_S = 10.0
MAX_BAD = 3
MAX_W = 1000.0


def watts(sample: bytes) -> tuple[float, int] | None:
    """Watts and actual nanoseconds of one property list; None where it is not a sample."""
    try:
        root = plistlib.loads(sample.strip(b"\0 \r\n\t"), fmt=plistlib.FMT_XML)
        elapsed = root["elapsed_ns"]
        processor = root["processor"]
        if not isinstance(elapsed, int) or not 0 < elapsed < 3600 * NANO:
            return None
        parts = [_milliwatts(processor, part, elapsed) for part in PARTS]
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, ExpatError):
        return None
    if parts[0] is None:
        return None
    total = sum(part or 0.0 for part in parts) / 1000
    return (total, elapsed) if math.isfinite(total) and 0 <= total < MAX_W else None


def _milliwatts(processor: dict[str, object], part: str, elapsed_ns: int) -> float | None:
    power, energy = processor.get(f"{part}_power"), processor.get(f"{part}_energy")
    if isinstance(power, (int, float)):
        return float(power)
    return float(energy) * NANO / elapsed_ns if isinstance(energy, (int, float)) else None


class PowermetricsMeter:
    """A running `powermetrics`; a thread of its own takes its samples as they arrive."""

    poll_s = 0.5

    def __init__(self, command: tuple[str, ...], clock: Clock) -> None:
        self.facts = FACTS
        self._clock = clock
        self._waiting: deque[Reading] = deque(maxlen=MAX_WAITING)
        self._failure: str | None = None
        self._bad = self._bad_in_a_row = 0
        self._heard = time.monotonic()
        self._first = threading.Event()
        self._talk = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._talk
            )
        except OSError as error:
            self._talk.close()
            raise MeterUnusable(f"cannot start {command[0]}: {error.strerror}") from None
        self._thread = threading.Thread(target=self._listen, name="powermetrics", daemon=True)
        self._thread.start()

    def wait_for_first(self, seconds: float) -> bool:
        """Whether a sample arrived within that many (real) seconds."""
        return self._first.wait(seconds) and bool(self._waiting)

    def why(self) -> str:
        """What is known of a failure."""
        return self._failure or "it printed no sample"

    def read(self) -> Reading | None:
        """The oldest sample that was not yet returned."""
        if self._waiting:
            return self._waiting.popleft()
        if self._failure is None and time.monotonic() - self._heard > SILENCE_S:
            self._failure = f"powermetrics printed nothing for {SILENCE_S:.0f} s"
        if self._failure is not None:
            raise MeterLost(self._failure)
        return None

    def flags(self) -> list[Flag]:
        """Samples that could not be read, which leave gaps."""
        return [Flag(f"{self._bad} samples of powermetrics were unreadable")] if self._bad else []

    def close(self) -> None:
        """End the process and its thread."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(1)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._thread.join(1)
        if self._process.stdout and not self._thread.is_alive():
            self._process.stdout.close()
        self._talk.close()

    def _listen(self) -> None:
        stream, held = self._process.stdout, b""
        assert stream is not None
        while self._failure is None and (chunk := os.read(stream.fileno(), 65536)):
            held += chunk
            while self._failure is None and END in held:
                sample, _, held = held.partition(END)
                self._take(sample + END)
            if len(held) > MAX_SAMPLE_BYTES:
                self._failure = "powermetrics printed a sample without end"
        self._failure = self._failure or self._last_words()
        self._first.set()

    def _take(self, sample: bytes) -> None:
        now_ns = time.monotonic_ns()
        self._heard = now_ns / NANO
        found = watts(sample)
        if found is None:
            self._bad += 1
            self._bad_in_a_row += 1
            if self._bad_in_a_row > MAX_BAD:
                self._failure = "powermetrics prints no `processor.cpu_power`"
            return
        self._bad_in_a_row = 0
        span_s = self._clock.at(found[1])
        self._waiting.append(Reading(self._clock.at(now_ns), found[0], span_s=span_s))
        self._first.set()

    def _last_words(self) -> str:
        """Why the process ended, in its own words."""
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return "powermetrics closed its output"
        self._talk.seek(0)
        said = self._talk.read(300).decode("utf-8", "replace").strip()
        return f"powermetrics ended with status {code}" + (f": {said}" if said else "")


FACTS = MeterFacts(
    meter="powermetrics",
    id="powermetrics:soc",
    read_from=" ".join((*COMMAND, "-f", "plist")),
    unit="mW",
    counter=False,
    update_period_s=1.0,
    quantum=0.001,
    calibration_share=0.15,
    calibration="none: Apple's manual calls the values estimates; 15 % assumed",
    grade="C",
    whole_device=False,
    covers=["CPU", "GPU", "neural engine"],
    excludes=["memory", "display", "storage", "radios", "conversion losses"],
)


class PowermetricsKind:
    """Starts `powermetrics` where it is installed and this is root."""

    name = "powermetrics"

    def find(self, machine: Machine, address: str | None) -> list[Meter]:
        """The one meter, already running; MeterUnusable elsewhere than on macOS, or without root.

        `address` is not used.
        """
        program = shutil.which(COMMAND[0]) if machine.tree.root == LIVE else None
        if program is None:
            raise MeterUnusable("there is no powermetrics here: it is part of macOS")
        if os.geteuid() != 0:
            raise MeterUnusable(
                "powermetrics needs root", hint="run the same command with `sudo` before it"
            )
        meter = PowermetricsMeter((program, *COMMAND[1:], "-f", "plist"), machine.clock)
        if not meter.wait_for_first(FIRST_SAMPLE_S):
            meter.close()
            raise MeterUnusable(meter.why())
        return [meter]
