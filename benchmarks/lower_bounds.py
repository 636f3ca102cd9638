"""Do the lower bounds of setup.cfg hold? Installs just those and runs the tests on them.

    python benchmarks/lower_bounds.py FOLDER [--extra hf] [--keep torch==2.13.0]
        [-- tests/test_cli.py -q]

FOLDER is where the virtual environment goes, with the Python that runs this. Each requirement
`name>=version` of `install_requires`, and of each `--extra`, is installed as `name==version`; one
that pip cannot find for this Python is reported and taken at the lowest version that it finds.
`--extra all` takes all that people install. `--keep` sets a version, such as of a torch that is to
stay. What comes after `--` goes to pytest; else the quick tests run, or those of the extras.
"""

from __future__ import annotations

import argparse
import configparser
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ["pytest", "pytest-timeout", "pytest-xdist", "hypothesis"]
TESTS = {  # of what each extra is for
    "api": ["test_external_api.py"],
    "hf": ["test_any_model.py", "test_external_models.py", "test_export.py"],
    "notebooks": ["test_analysis.py", "test_grokking.py", "test_seeds.py"],
    "onnx": ["test_export.py"],
    "ray": ["test_sweep_ray.py"],
    "tensorboard": ["test_logs.py"],
    "text": ["test_corpus.py"],
    "tools": ["test_export.py", "test_logs.py"],
    "trackio": ["test_logs.py"],
    "wandb": ["test_logs.py"],
    "web": ["test_serve.py"],
}
ALL = sorted({*TESTS} - {"tools"})
FOUND = re.compile(r"from versions: ([^)]*)\)")


def requirements() -> tuple[str, dict[str, str]]:
    """What setup.cfg says that addgpt needs, and each extra besides: a requirement a line."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config["options"]["install_requires"], dict(config["options.extras_require"])


def bounds(lines: list[str]) -> dict[str, str]:
    """The lowest version of each requirement, by name; `name[part]>=1,<2` is a name and 1."""
    return dict(re.fullmatch(r"([][\w.-]+)>=([\w.]+)(?:,.*)?", one).groups() for one in lines)  # type: ignore[union-attr]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    needed, extras = requirements()
    parser.add_argument("--extra", action="append", default=[], choices=["all", *extras])
    parser.add_argument("--keep", action="append", default=[], metavar="NAME==VERSION")
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    asked = parser.parse_args(words[:end])
    chosen = ALL if "all" in asked.extra else asked.extra
    files = sorted({f"tests/{file}" for name in chosen for file in TESTS.get(name, [])})
    tests = words[end + 1 :] or ["-q", "-rs", *(files or ["-m", "not slow"])]
    kept = dict(one.split("==") for one in asked.keep)
    venv.create(asked.folder, with_pip=True)
    python = str(next((asked.folder / name) for name in ("bin/python", "Scripts/python.exe")
                      if (asked.folder / name).exists()))  # fmt: skip
    lines = "\n".join([needed, *(extras[name] for name in chosen)]).split()
    wanted = {name: kept.get(name, version) for name, version in bounds(lines).items()}
    if not install(python, wanted):
        wanted = {name: lowest(python, name, version) for name, version in wanted.items()}
        if not install(python, wanted):
            return 1
    return subprocess.run([python, "-m", "pytest", *tests], cwd=ROOT).returncode


def install(python: str, wanted: dict[str, str]) -> bool:
    """Install just these versions, together; whether pip could."""
    pins = [f"{name}=={version}" for name, version in wanted.items()]
    print("installing", *pins, flush=True)
    return not subprocess.run([python, "-m", "pip", "install", "-q", *pins, *TOOLS]).returncode


def lowest(python: str, name: str, version: str) -> str:
    """The version itself, or where there is no wheel of it here the next one that there is."""
    only = ["--only-binary", ":all:", "--no-deps", "--dry-run", "-q"]
    words = [python, "-m", "pip", "install", *only]
    done = subprocess.run([*words, f"{name}=={version}"], capture_output=True, text=True)
    if not done.returncode:
        return version
    match = FOUND.search(done.stderr)
    found = [one.strip() for one in match[1].split(",")] if match else []

    def key(text: str) -> tuple[int, ...]:
        return tuple(map(int, re.findall(r"\d+", text)))

    later = [one for one in found if key(one) >= key(version) and re.fullmatch(r"[\d.]+", one)]
    if not later:
        sys.exit(f"{name}>={version}: pip finds none: {done.stderr.strip()[-300:]}")
    print(f"{name}=={version} is not to be had here: {later[0]}", flush=True)
    return later[0]


if __name__ == "__main__":
    sys.exit(main())
