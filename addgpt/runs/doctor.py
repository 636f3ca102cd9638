"""Is this installation in order, how fast is the machine, and are the results sound?"""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from addgpt.device import choose_threads, memory, pick_device, product_rate, usable_cores
from addgpt.runs import files
from addgpt.runs.provenance import versions
from addgpt.runs.run import METRICS, MODEL, SHIPPED, STATE, Run, RunError

LOOK_SECONDS = 4.0  # for looking through results, so that the doctor is never late
LEAST_DISK = 1 << 30  # bytes


class Finding(NamedTuple):
    """What was looked at, what was found, and what to do about it if it is not well."""

    what: str
    found: str
    advice: str = ""
    bad: bool = False


def examine(results: Path) -> Iterator[Finding]:
    """All there is to say about this installation and a results folder."""
    yield from _software()
    yield from _machine()
    yield from _extras()
    yield from _shipped()
    yield from _results(results)


def faults(path: Path) -> list[str]:
    """What is wrong with a run folder, a line each. That something is not there yet is no fault."""
    try:
        run = Run(path)
        run.task()
    except (RunError, ValueError) as error:
        return [_naming(path, error)]
    found = []

    def check(name: str, act) -> object:
        try:
            return act() if (path / name).exists() else None
        except (RunError, ValueError) as error:
            found.append(_naming(path, error))

    check(MODEL, run.model)
    state = check(STATE, run.state)
    if state is not None:
        check(METRICS, lambda: run.check_log(state[1].get("step", 0), state[1].get("log")))
    else:
        check(METRICS, run.metrics)
    for file in sorted(path.glob("eval*.csv")):
        check(file.name, lambda file=file: files.read_checked(file))
    return found


def _naming(path: Path, error: Exception) -> str:
    """The message, with the folder in it."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def _software() -> Iterator[Finding]:
    for name, version in versions().items():
        if name != "machine" and version:
            yield Finding(name, version)
    about = torch.__config__.show()
    blas = re.search(r"BLAS_INFO=(\w+)", about)
    vectors = torch.backends.cpu.get_cpu_capability()
    yield Finding("BLAS", f"{blas[1] if blas else 'unknown'}, vectors {vectors}")


def _machine() -> Iterator[Finding]:
    device = pick_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else versions()["machine"]
    yield Finding("device", f"{device.type}: {name}")
    cores, small, large = usable_cores(), choose_threads(), choose_threads(0, 1 << 20, 1 << 20)
    slow = "more threads than cores wait for each other" if small.number > cores else ""
    found = f"{small.number} for a small model ({small.why}), "
    yield Finding("threads", f"{found}{large.number} for a large one ({large.why})", slow)
    yield Finding("memory", f"{memory() / 2**30:.1f} GiB")
    for dtype in (torch.float32, torch.bfloat16):
        kind = str(dtype).removeprefix("torch.")
        rate = product_rate(device, dtype)
        yield Finding(f"matrix products, {kind}", f"{rate / 1e9:,.0f} GFLOP/s")


def _extras() -> Iterator[Finding]:
    try:
        needs = importlib.metadata.requires("addgpt") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("package", "not installed", "pip install -e . in the source folder")
        return
    extras: dict[str, list[str]] = {}
    for need in needs:
        extra = re.search(r"extra == ['\"](\w+)['\"]", need)
        name = re.match(r"[\w.-]+", need)
        if name and name[0] != "addgpt":
            extras.setdefault(extra[1] if extra else "", []).append(name[0])
    for extra, names in sorted(extras.items()):
        missing = [name for name in names if not _installed(name)]
        told = f"missing: {', '.join(missing)}" if missing else "there"
        install = f"pip install -e '.[{extra}]'" if extra else "pip install -e ."
        advice = f"{install}, if you want it" if missing else ""
        name = f"extra {extra}" if extra else "packages"
        yield Finding(name, told, advice, bool(missing and not extra))


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _shipped() -> Iterator[Finding]:
    if not (SHIPPED / "config.json").exists():
        yield Finding("calculator", "not shipped", "addgpt calc --model RUN uses a run of yours")
        return
    wrong = faults(SHIPPED)
    advice = "install addgpt anew" if wrong else ""
    yield Finding("calculator", wrong[0] if wrong else "sound", advice, bool(wrong))


def _results(results: Path) -> Iterator[Finding]:
    """Whether the folder, or the one it would be made in, can be written; each run in it."""
    home = next(path for path in (results, *results.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=home):
            pass
        yield Finding("results", f"{results} can be written")
    except OSError as error:
        advice = f"make {home} writable, or use --out elsewhere"
        yield Finding("results", f"{home}: {error.strerror}", advice, True)
    room = shutil.disk_usage(home).free
    advice = "make room: a checkpoint that does not fit is not written" * (room < LEAST_DISK)
    yield Finding("free disk", f"{room / 2**30:,.1f} GiB", advice, room < LEAST_DISK)
    runs = sorted(file.parent for file in results.rglob("config.json")) if results.is_dir() else []
    end, sound = time.monotonic() + LOOK_SECONDS, 0
    for number, path in enumerate(runs):
        if time.monotonic() > end:
            left = f"{len(runs) - number:,} runs were not looked at, for lack of time"
            yield Finding("more runs", left, "addgpt doctor --results FOLDER looks at some of them")
            break
        wrong = faults(path)
        sound += not wrong
        for line in wrong:
            advice = "see above; restore it, go on as the line says, or remove it"
            yield Finding("damaged", line, advice, True)
    if runs:
        yield Finding("sound runs", f"{sound:,} of {len(runs):,}")
