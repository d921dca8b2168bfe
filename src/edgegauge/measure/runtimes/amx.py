"""Keeps llama.cpp off Intel's AMX unit, which no edge device has and which crashes common builds.

Linux grants AMX to a process that asks (arch_prctl ARCH_REQ_XCOMP_PERM), and llama.cpp asks once,
when it first lists its buffer types. GCC 12.2 and others drop the stores that describe the tile
shapes, because their `_tile_loadconfig` claims to read only 8 of its 64 bytes; `ldtilecfg` then
faults and every quantised model dies with SIGSEGV (the symptom of ggml-org/llama.cpp issue 20824).
A refused request makes llama.cpp repack for AVX instead, as on laptops.

The request is refused by the kernel's own rule: while a thread's alternate signal stack is too
small for a frame with AMX state, permission is denied (arch/x86/kernel/fpu/xstate.c,
validate_sigaltstack). The stack is put back at once.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNAL_STACK_BYTES = 8192
"""Enough for a frame with AVX-512 state (about 3.6 kB), too little for AMX's further 8 kB."""
CPU_DEVICE = 0
"""GGML_BACKEND_DEVICE_TYPE_CPU."""


class _SignalStack(ctypes.Structure):
    """`stack_t` of sigaltstack(2)."""

    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def settle(library: Any) -> None:
    """Make llama.cpp (its C library handle) list its buffer types now, with AMX refused.

    It does so once per process, so later calls change nothing. Does nothing where the functions
    or AMX do not exist.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return
    try:
        by_type, registry = library.ggml_backend_dev_by_type, library.ggml_backend_dev_backend_reg
        find = library.ggml_backend_reg_get_proc_address
    except AttributeError:
        return
    for function in (by_type, registry, find):
        function.restype = ctypes.c_void_p
    device = ctypes.c_void_p(by_type(CPU_DEVICE))
    name = b"ggml_backend_dev_get_extra_bufts"
    address = find(ctypes.c_void_p(registry(device)), name) if device else None
    if address:
        listing = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(address)
        with _small_signal_stack(), _muted_stderr():
            listing(device)


@contextmanager
def _small_signal_stack() -> Iterator[None]:
    libc = ctypes.CDLL(None)
    space = ctypes.create_string_buffer(SIGNAL_STACK_BYTES)
    small = _SignalStack(ctypes.cast(space, ctypes.c_void_p), 0, SIGNAL_STACK_BYTES)
    before = _SignalStack()
    changed = libc.sigaltstack(ctypes.byref(small), ctypes.byref(before)) == 0
    try:
        yield
    finally:
        if changed:
            libc.sigaltstack(ctypes.byref(before), None)


@contextmanager
def _muted_stderr() -> Iterator[None]:
    """llama.cpp reports the refusal with fprintf, past its own log callback."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
