"""Everything that depends on the machine: device, precision, threads, memory."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

from addgpt.config.architectures import GPTConfig, ModelConfig
from addgpt.config.errors import UsageError

WIDE = 128  # channels from which bfloat16 pays on a CPU (docs/log.md)
WORK_OF_A_THREAD = 150_000_000  # weights times tokens of a pass for which one more thread pays


def pick_device(name: str = "auto", number: int = 0) -> torch.device:
    """The device called `name`; `auto` takes CUDA (its GPU `number`), then MPS, then the CPU."""
    here = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(kind for kind, present in here.items() if present)
    if not here[name]:
        raise UsageError(f"this machine has no {name}; use --set device=auto")
    if name != "cuda":
        return torch.device(name)
    if number >= torch.cuda.device_count():
        have = torch.cuda.device_count()
        raise UsageError(f"this machine has {have} GPUs, too few for its worker {number}")
    return torch.device(name, number)


def compute_dtype(device: torch.device, precision: str, model: ModelConfig) -> torch.dtype:
    """The compute dtype of matrix products: the one asked for, or with `auto` the fastest here.

    That is bfloat16 on a CUDA device that supports it, and on a CPU that does if the GPT is wide
    enough to make up for the conversions.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported()
    else:
        wide = isinstance(model, GPTConfig) and model.width >= WIDE
        native = device.type == "cpu" and wide and _cpu_has_bfloat16()
    chosen = {"float32": False, "bfloat16": True, "auto": native}[precision]
    return torch.bfloat16 if chosen else torch.float32


def _cpu_has_bfloat16() -> bool:
    has: dict = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.10 and later can say
    return any(has.get(name) for name in ("avx512_bf16", "amx_bf16"))


def autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    """Matrix products in that type; the rest stays as it is."""
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)


def seed_dropout(device: torch.device, seed: int) -> None:
    """Seed what models draw on a device. `torch.manual_seed` asks all devices: 0.5 ms each time."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def memory() -> int:
    """Bytes of this machine's memory; a generous guess where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 1 << 36


def matmul_flops(device: torch.device, dtype: torch.dtype, seconds: float = 0.3) -> float:
    """FLOP/s of square matrix products on a device, the best of those that fit into the time."""
    size = 512 if device.type == "cpu" else 4096
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        began = time.perf_counter()
        float((a @ b)[0, 0])  # waits for the device
        now = time.perf_counter()
        best = min(best, now - began)
        if now >= end:
            return 2 * size**3 / best


def keep_memory() -> None:
    """Let glibc keep large temporaries instead of returning them after every operation.

    Page faults otherwise take a large share of a small model's step on Linux. Does nothing where
    the C library has no `mallopt`.
    """
    if not sys.platform.startswith("linux"):
        return
    m_trim_threshold, m_mmap_threshold, one_gib = -1, -3, 1 << 30
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_mmap_threshold, one_gib)
        mallopt(m_trim_threshold, one_gib)


class Threads(NamedTuple):
    """How many CPU threads to work with, and why that many."""

    number: int
    why: str


def choose_threads(asked: int = 0, weights: int = 0, tokens: int = 0) -> Threads:
    """The number of CPU threads asked for, or else as many as pay off and are free.

    Threads wait for one another after every operation. A small model's are so short that a second
    thread hardly pays on an idle machine and costs much on a busy one.

    Args:
        asked: a setting; 0 to decide here.
        weights: how many the model has.
        tokens: how many one pass reads.
    """
    if asked:
        return Threads(asked, "as set")
    if by_user := threads_by_user():
        return Threads(by_user, "as OMP_NUM_THREADS says")
    useful = weights * tokens // WORK_OF_A_THREAD
    if useful < 2:
        return Threads(1, "a small model is not faster with more")
    free, cores = idle_cores(), usable_cores()
    return Threads(min(useful, free), f"{free} of {cores} cores idle")


def threads_by_user() -> int:
    """What OMP_NUM_THREADS says, or 0."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdecimal() else 0


def allowed_cores() -> list[int]:
    """The numbers of the cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """Cores that this process may keep busy: those allowed, within its container's quota."""
    cores = len(allowed_cores())
    with contextlib.suppress(OSError, ValueError):  # "max 100000" is no limit
        quota, period = map(int, Path("/sys/fs/cgroup/cpu.max").read_text().split())
        cores = min(cores, math.ceil(quota / period))
    return max(1, cores)


def idle_cores(seconds: float = 0.1) -> int:
    """How many usable cores are not busy with other work, at least 1. Takes that many seconds."""
    cores = usable_cores()
    try:
        before = _idle_seconds()
        time.sleep(seconds)
        busy = cores - (_idle_seconds() - before) / seconds
    except (OSError, ValueError, AttributeError):  # not Linux: the last minute's load instead
        busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return min(cores, max(1, round(cores - busy)))


def _idle_seconds() -> float:
    """How long the cores that this process may use have been idle, all together, on Linux."""
    mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    idle = [int(words[4]) + int(words[5]) for words in lines if words and words[0] in mine]
    if not any(idle):
        raise ValueError("this system does not count")
    return sum(idle) / os.sysconf("SC_CLK_TCK")


def prepare(threads: int = 0, weights: int = 0, tokens: int = 0) -> Threads:
    """Set the number of CPU threads, as `choose_threads` says, and the allocator."""
    chosen = choose_threads(threads, weights, tokens)
    torch.set_num_threads(chosen.number)
    keep_memory()
    return chosen
