"""What an import loads and does. Which module may import which, `make lint` checks."""

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("addgpt", "tasks", "analysis")
UNIX = {"curses", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for p in PACKAGES for file in sorted((ROOT / p).rglob("*.py"))}
TESTS = sorted((ROOT / "tests").rglob("*.py"))


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """What is carried out when a module is imported: all but the insides of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from statements(child)


def imported(nodes: Iterator[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def test_the_packages_are_found():
    assert all(len([name for name in FILES if name.startswith(p)]) > 1 for p in PACKAGES)


def test_modules_are_imported_by_name_for_tasks_and_commands_alone():
    allowed = ("addgpt.task_lookup", "addgpt.cli.main")
    for module, file in FILES.items():
        if module.startswith("addgpt") and module not in allowed:
            assert "import_module" not in file.read_text(encoding="utf-8"), module


def test_what_only_unix_has_is_imported_inside_functions():
    for module, file in FILES.items():
        assert not UNIX & set(imported(statements(parsed(file)))), module


def test_tests_import_helpers_but_no_other_tests():
    for file in TESTS:
        for name in imported(ast.walk(parsed(file))):
            first, *rest = name.split(".")
            assert not first.startswith("test_") and first != "conftest", (file, name)
            assert first != "tests" or not rest or rest[0] == "helpers", (file, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "import addgpt.task",
        "import addgpt.cli.main",
        "from addgpt.task_lookup import load_task, task_names; [*map(load_task, task_names())]",
        "import matplotlib; before = dict(matplotlib.rcParams); import "
        + ", ".join(name for name in FILES if name.startswith("analysis"))
        + "; assert dict(matplotlib.rcParams) == before",
    ],
)
def test_torch_is_not_loaded_by(statement):
    code = f"import sys; {statement}; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_nothing_happens_at_import_but_definitions():
    quiet = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for module, file in FILES.items():
        for node in parsed(file).body:
            if isinstance(node, quiet) or module == "addgpt.__main__":
                continue
            text = ast.unparse(node)
            guard = isinstance(node, ast.If) and ("__main__" in text or "TYPE_CHECKING" in text)
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            assert guard or docstring, (module, text)


@pytest.mark.slow
def test_loading_a_model_loads_neither_the_compiler_nor_sympy():
    code = (
        "import sys; from addgpt.runs.run import SHIPPED, Run; Run(SHIPPED).model();"
        "from addgpt.runs.checkpoint import shapes; from addgpt.runs.resolve import configure;"
        "shapes(configure('add', {}).model);"
        "print({'torch._dynamo', 'sympy'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "set()"


def test_where_runs_are_kept_is_written_once():
    said = "RESULTS = 'results'"
    found = [
        module
        for module, file in FILES.items()
        if said in [ast.unparse(node) for node in parsed(file).body if isinstance(node, ast.Assign)]
    ]
    assert found == ["addgpt.runs"]


def test_each_package_is_asked_for_once():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split()
    names = [line.partition(">=")[0] for line in lines]
    assert len(names) == len(set(names)) > 5
