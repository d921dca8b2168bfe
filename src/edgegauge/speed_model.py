"""Which method predicts the speed of a device with a runtime: the first of these that it has.

1. a calibration of this runtime in the profile, for this number of threads (`calibration.py`)
2. a row that somebody measured on it, in the profile (`measured_row.py`)
3. a published measurement of this very device (`transfer.py`)
4. the prior of its core class (`speed.py`)
"""

from __future__ import annotations

from edgegauge.calibration import CalibratedSpeed
from edgegauge.device import DeviceProfile
from edgegauge.measured_row import measured_speed
from edgegauge.speed import SpeedModel, class_speed, machine_of
from edgegauge.transfer import transferred


def speed_model(device: DeviceProfile, runtime: str, threads: int | None = None) -> SpeedModel:
    """The best model of this device's speed; `runtime` is llama.cpp, onnxruntime or litert, and
    `threads` defaults to what the calibration used, else to the fast cores."""
    calibration = (device.calibration or {}).get(runtime)
    if calibration is not None and threads in (None, calibration.threads):
        return CalibratedSpeed(runtime, calibration)
    machine = machine_of(device, threads or device.cpu.fast_cores)
    return (
        measured_speed(device, machine, runtime)
        or transferred(device, machine, runtime)
        or class_speed(machine, runtime)
    )
