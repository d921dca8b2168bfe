"""Smart plugs, against real HTTP servers on this machine: units, checks, and hostile answers."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from played_machine import HandClock

from edgegauge.measure.machine import Machine
from edgegauge.measure.meters import Meter, MeterLost, MeterUnusable, Reading, plug
from edgegauge.measure.meters.plug import ShellyKind, TasmotaKind, gen1, gen2, tasmota

SWITCH, PM1, STATUS = "/rpc/Switch.GetStatus?id=0", "/rpc/PM1.GetStatus?id=0", "/status"
STATUS8 = "/cm?cmnd=Status%208"


class Plug:
    """Answers by path; `power` W and the energy the plug has counted in its own unit."""

    def __init__(self, **answers: Callable[[], Any]) -> None:
        self.answers: dict[str, Callable[[], Any]] = {}
        self.address = ""
        self.asked: list[str] = []


@contextmanager
def serving(answers: dict[str, Any]) -> Iterator[Plug]:
    """A server on a free port. An answer is a document, bytes, an HTTP status, or a function."""
    device = Plug()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            device.asked.append(self.path)
            answer = answers.get(self.path, 404)
            answer = answer() if callable(answer) else answer
            status, body = (answer, b"{}") if isinstance(answer, int) else (200, answer)
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    device.address = f"127.0.0.1:{server.server_address[1]}"
    try:
        yield device
    finally:
        server.shutdown()
        server.server_close()


def shelly(power: float, total_wh: float | None = 5.0) -> dict[str, Any]:
    return {"id": 0, "output": True, "apower": power, "voltage": 230.1,
            "aenergy": {"total": total_wh, "by_minute": [0.0, 1.0, 2.0]}}  # fmt: skip


def sonoff(power: float, total_kwh: float = 0.003) -> dict[str, Any]:
    return {"StatusSNS": {"Time": "2026-11-22T20:06:19", "ENERGY": {
        "Total": total_kwh, "Yesterday": 0.0, "Power": power, "Voltage": 239}}}  # fmt: skip


def find(kind: ShellyKind | TasmotaKind, address: str | None) -> Meter:
    return kind.find(Machine(clock=HandClock()), address)[0]


def test_units_of_the_totals() -> None:
    # 3600 J each time: one Wh, 60 watt-minutes, a thousandth of a kWh.
    assert gen2(shelly(12.5, 1.0)) == (12.5, 3600.0)
    assert gen1({"meters": [{"power": 12.5, "is_valid": True, "total": 60}]}) == (12.5, 3600.0)
    assert tasmota(sonoff(12, 0.001)) == (12.0, pytest.approx(3600.0))
    assert gen2({"apower": 5}) == (5.0, None)


@pytest.mark.parametrize("path", [SWITCH, PM1])
def test_shelly_gen2(path: str) -> None:
    with serving({path: shelly(23.4)}) as device:
        meter = find(ShellyKind(), device.address)
        reading = meter.read()
        assert reading is not None and reading.value == 23.4
        assert meter.facts.grade == "C" and meter.facts.whole_device
        assert any("power supply" in what for what in meter.facts.covers)
        assert meter.poll_s == 1.0


def test_shelly_gen1_and_tasmota() -> None:
    with serving({STATUS: {"meters": [{"power": 7.25, "is_valid": True, "total": 5}]}}) as device:
        assert find(ShellyKind(), device.address).read().value == 7.25  # type: ignore[union-attr]
    with serving({STATUS8: sonoff(26)}) as device:
        meter = find(TasmotaKind(), f"http://{device.address}/")
        assert meter.read().value == 26  # type: ignore[union-attr]
        assert meter.facts.quantum == 1.0
    with serving({STATUS8: sonoff(26.4)}) as device:
        assert find(TasmotaKind(), device.address).facts.quantum == 0.1


@pytest.mark.parametrize(
    "address",
    [
        None,
        "",
        "https://192.168.1.20",
        "host/path",
        "a b",
        "host:99999",
        "host:0",
        "u@host",
        "x\r\ny",
    ],
)
def test_an_address_is_needed_and_is_only_that(address: str | None) -> None:
    said = "give its address: --meter shelly:" if not address else "is not HOST or HOST:PORT"
    with pytest.raises(MeterUnusable, match=said):
        find(ShellyKind(), address)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"<html>hello</html>", "makes no sense"),
        (b"", "makes no sense"),
        (b"[" * 60_000, "makes no sense"),
        (b"\xff\xfe\x00", "makes no sense"),
        (b"x" * 1_000_000, "too long"),
        (500, "HTTP status 500"),
        (302, "HTTP status 302"),
        (401, "password"),
        ({"WARNING": "Need user=<username>&password=<password>"}, "holds no power"),
        ([], "holds no power"),
        ({"StatusSNS": {"ENERGY": {"Power": [1, 2]}}}, "not a number"),
        ({"StatusSNS": {"ENERGY": {"Power": -3}}}, "-3 W"),
        (b'{"StatusSNS": {"ENERGY": {"Power": NaN}}}', "nan W"),
        (b'{"StatusSNS": {"ENERGY": {"Power": 1e999}}}', "inf W"),
        ({"StatusSNS": {"ENERGY": {"Power": True}}}, "not a number"),
    ],
)
def test_answers_that_are_none(answer: Any, said: str) -> None:
    with serving({STATUS8: answer}) as device:
        with pytest.raises(MeterUnusable, match=said):
            find(TasmotaKind(), device.address)
        assert "/elsewhere" not in device.asked


def test_nobody_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(MeterUnusable, match="no answer"):
            find(TasmotaKind(), f"127.0.0.1:{unused.getsockname()[1]}")


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.0 200 OK\r\n\r\n1"])
def test_an_answer_that_drips_ends_in_time(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plug, "TIMEOUT_S", 0.2)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            peer, _ = server.accept()
            with peer:
                peer.sendall(head)
                # Each byte comes within the socket's own timeout, so only the whole ends it.
                while not stop.wait(0.02):
                    try:
                        peer.sendall(b"1")
                    except OSError:
                        return

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        began = time.monotonic()
        with pytest.raises(MeterUnusable, match="no answer"):
            find(TasmotaKind(), f"127.0.0.1:{server.getsockname()[1]}")
        assert time.monotonic() - began < 5  # it would drip for ever
        stop.set()
        thread.join(5)


def test_an_answer_without_end_is_not_collected() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def flood() -> None:
            peer, _ = server.accept()
            with peer, suppress(OSError):
                peer.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                while True:
                    peer.sendall(b"1" * 65536)

        thread = threading.Thread(target=flood, daemon=True)
        thread.start()
        with pytest.raises(MeterUnusable, match="too long"):
            find(TasmotaKind(), f"127.0.0.1:{server.getsockname()[1]}")
        thread.join(5)


def test_a_missed_poll_is_a_gap_and_five_are_the_end() -> None:
    bad: list[int] = [0]

    def answer() -> Any:
        bad[0] -= 1
        return 500 if bad[0] >= 0 else sonoff(26)

    with serving({STATUS8: answer}) as device:
        meter = find(TasmotaKind(), device.address)
        bad[0] = 4
        assert [meter.read() for _ in range(4)] == [None] * 4
        assert isinstance(meter.read(), Reading)
        assert "4 requests" in meter.flags()[0].text
        bad[0] = 99
        assert [meter.read() for _ in range(4)] == [None] * 4
        with pytest.raises(MeterLost, match="500"):
            meter.read()
        meter.close()


def run_for(
    kind: ShellyKind | TasmotaKind, path: str, answer: Callable[[float], Any], seconds: int
) -> list[str]:
    """Flags of a meter after so many polls; `answer` by seconds."""
    clock = HandClock()
    began = clock.now_s()
    with serving({path: lambda: answer(clock.now_s() - began)}) as device:
        (meter,) = kind.find(Machine(clock=clock), device.address)
        for _ in range(seconds):
            assert meter.read() is not None
            clock.wait(1.0)
        return [flag.text for flag in meter.flags()]


def test_total_in_wh_and_kwh_agree_with_the_power() -> None:
    def wh(t: float) -> Any:
        return shelly(30.0, round(30 * t / 3600, 2))

    def kwh(t: float) -> Any:
        return sonoff(2000, round(2 * t / 3600, 3))

    assert run_for(ShellyKind(), SWITCH, wh, 120) == []
    assert run_for(TasmotaKind(), STATUS8, kwh, 120) == []


def test_a_total_that_disagrees_is_told() -> None:
    flags = run_for(ShellyKind(), SWITCH, lambda t: shelly(30.0, 20 * t / 3600), 120)
    assert len(flags) == 1 and "counted" in flags[0]
    # Not long enough to tell: each step of the total is known to a second only.
    assert run_for(ShellyKind(), SWITCH, lambda t: shelly(30.0, 20 * t / 3600), 40) == []
    # Too coarse to tell anything: one step of 3600 J in the whole run.
    coarse = run_for(TasmotaKind(), STATUS8, lambda t: sonoff(30, round(0.05 * t / 3600, 3)), 100)
    assert coarse == []


def test_low_power_is_told() -> None:
    flags = run_for(ShellyKind(), SWITCH, lambda t: shelly(3.0), 5)
    assert any("below 5 W" in flag for flag in flags)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["apower", "aenergy", "total", "meters", "power", "StatusSNS", "ENERGY",
                         "Power", "Total", "is_valid"]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(document=JSON)
def test_any_document_is_a_power_or_an_error_that_is_caught(document: Any) -> None:
    for parse in (gen2, gen1, tasmota):
        try:
            power, total = parse(document)
        except (ValueError, LookupError, TypeError, AttributeError):
            continue
        assert 0 <= power <= plug.MAX_W
        assert total is None or total >= 0
