"""Is this installation in order, how fast is the machine, and are the results sound?"""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from packaging.requirements import Requirement

from addgpt.device import choose_threads, matmul_flops, memory, pick_device, usable_cores
from addgpt.runs.checkpoint import read_tensors
from addgpt.runs.files import Damaged, RunError, Unsupported, check, checksums, holds_run, read_log
from addgpt.runs.provenance import versions
from addgpt.runs.run import KEPT, METRICS, MODEL, PREVIOUS, SHIPPED, STATE, Run

CHECK_SECONDS = 4.0  # for going through results, so that the doctor is never late
LEAST_DISK = 1 << 30  # bytes


class Finding(NamedTuple):
    """What was checked, what was found, and what to do about it."""

    what: str
    found: str
    advice: str = ""
    bad: bool = False


def diagnose(results: Path) -> Iterator[Finding]:
    """All there is to say about this installation and a results folder."""
    yield from _software()
    yield from _machine()
    yield from _extras()
    yield from _shipped()
    yield from _results(results)


def open_run(path: Path) -> Run:
    """The run in a folder. Raises RunError; Unsupported where this version lacks its task."""
    run = Run(path)
    try:
        run.task()
    except ValueError as error:
        raise Unsupported(str(error)) from None
    return run


def faults(path: Path) -> list[str]:
    """What is damaged in a run folder, a line each. A missing file is not a fault.

    Raises Unsupported for a run without damage that is of a task, or has a setting, that this
    version does not know.
    """
    unsupported: Unsupported | None = None
    checks: dict[str, Callable[[], object]] = {}
    try:
        names = sorted(checksums(path)) + [f"{KEPT}/{x}" for x in sorted(checksums(path / KEPT))]
        checks |= {name: partial(check, path / name) for name in names}
        checks |= {METRICS: partial(read_log, path / METRICS)}  # which grows
        run = open_run(path)
        checks |= {MODEL: run.model, STATE: run.state}
    except Unsupported as error:
        unsupported = error
    except RunError as error:
        return [str(error)]
    found = []
    for name, act in checks.items():
        try:
            if name == METRICS or (path / name).exists():
                act()
        except RunError as error:
            hint = recovery_hint(error.path) if isinstance(error, Damaged) else ""
            found.append(f"{error}{hint}")
    if unsupported and not found:
        raise unsupported
    return found


def recovery_hint(damaged: Path) -> str:
    """How to go on where a file of a run is damaged or missing, to put after the error."""
    folder = damaged.parent
    out = shlex.quote(str(folder))

    def step(name: str) -> float | None:
        with contextlib.suppress(RunError):
            return read_tensors(folder / name)[1].get("step")
        return None

    if damaged.name == MODEL and step(STATE) is not None:
        return f"; its checkpoint is sound, this writes it anew: addgpt train --resume --out {out}"
    if damaged.name == STATE and (before := step(PREVIOUS)) is not None:
        resume = f"addgpt train --resume --previous --out {out}"
        return f"; the checkpoint before it (step {before}) is sound, resume from it: {resume}"
    if damaged.name == STATE and step(MODEL) is not None:
        return f"; {MODEL} is sound: start a new run from it with --init-from {out}"
    never = damaged.name == MODEL and MODEL not in checksums(folder)
    return "; the run has not saved a checkpoint yet" if never else ""


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
    yield _threads()
    yield Finding("memory", f"{memory() / 2**30:.1f} GiB")
    for dtype in (torch.float32, torch.bfloat16):
        kind = str(dtype).removeprefix("torch.")
        rate = matmul_flops(device, dtype)
        yield Finding(f"matrix products, {kind}", f"{rate / 1e9:,.0f} GFLOP/s")


def _threads() -> Finding:
    cores, small, large = usable_cores(), choose_threads(), choose_threads(0, 1 << 20, 1 << 20)
    slow = "more threads than cores wait for each other" if small.number > cores else ""
    found = f"{small.number} for a small model ({small.why}), "
    return Finding("threads", f"{found}{large.number} for a large one ({large.why})", slow)


def _extras() -> Iterator[Finding]:
    """Whether what this package and each of its extras need is installed."""
    try:
        about = importlib.metadata.metadata("addgpt")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("package", "not installed", "pip install -e . in the source folder")
        return
    needs = [Requirement(text) for text in about.get_all("Requires-Dist") or []]
    base = [need for need in needs if _wanted(need, "")]
    for extra in ("", *sorted(about.get_all("Provides-Extra") or [])):
        mine = [n for n in needs if _wanted(n, extra) and (not extra or n not in base)]
        missing = [str(n).partition(";")[0].strip() for n in mine if not _installed(n)]
        told = f"missing: {', '.join(missing)}" if missing else "there"
        install = f"pip install -e '.[{extra}]'" if extra else "pip install -e ."
        advice = f"{install}, if you want it" if missing else ""
        name = f"extra {extra}" if extra else "packages"
        yield Finding(name, told, advice, bool(missing and not extra))


def _wanted(need: Requirement, extra: str) -> bool:
    itself = need.name == "addgpt"  # an extra that takes in another one
    return not itself and (need.marker is None or need.marker.evaluate({"extra": extra}))


def _installed(need: Requirement) -> bool:
    try:
        found = importlib.metadata.version(need.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return need.specifier.contains(found, prereleases=True)


def _shipped() -> Iterator[Finding]:
    if not (SHIPPED / "config.json").exists():
        yield Finding("calculator", "not shipped", "addgpt calc --model RUN uses a run of yours")
        return
    try:
        wrong = faults(SHIPPED)
    except Unsupported as error:
        wrong = [str(error)]
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
    full = room < LEAST_DISK
    advice = "make room: a checkpoint that does not fit is not written" if full else ""
    yield Finding("free disk", f"{room / 2**30:,.1f} GiB", advice, full)
    if results.is_dir():
        yield from examine(runs_in(results), CHECK_SECONDS)


def runs_in(folder: Path) -> list[Path]:
    """The folder itself if it is a run, and all runs below it."""
    return sorted(filter(holds_run, (file.parent for file in folder.rglob("config.json"))))


def examine(runs: Sequence[Path], seconds: float = math.inf) -> Iterator[Finding]:
    """Each run that is damaged, or that this version cannot open; as many as there is time for."""
    end, sound = time.monotonic() + seconds, 0
    for number, path in enumerate(runs):
        if time.monotonic() > end:
            left = f"{len(runs) - number:,} runs were not checked, for lack of time"
            yield Finding("more runs", left, "addgpt doctor FOLDER checks all of those in it")
            break
        try:
            wrong = faults(path)
        except Unsupported as error:
            advice = "sound, but of another version of addgpt or of a task of one's own: use that"
            yield Finding("another version", str(error), advice)
            continue
        sound += not wrong
        for line in wrong:
            advice = "restore it, go on as the line says, or remove it"
            yield Finding("damaged", line, advice, True)
    if runs:
        yield Finding("sound runs", f"{sound:,} of {len(runs):,}")
