"""What an import loads and does. Which module may import which, `make lint` checks."""

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
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


def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def test_the_packages_are_found():
    assert all(len([name for name in FILES if name.startswith(p)]) > 1 for p in PACKAGES)


@pytest.mark.parametrize("module", [name for name in FILES if name.startswith("addgpt")])
def test_modules_are_imported_by_name_for_tasks_and_commands_alone(module):
    reaches = "import_module" in FILES[module].read_text(encoding="utf-8")
    assert not reaches or module in ("addgpt.task_lookup", "addgpt.cli.main")


@pytest.mark.parametrize("module", FILES)
def test_what_only_unix_has_is_imported_inside_functions(module):
    assert not UNIX & set(imported(statements(parsed(FILES[module]))))


@pytest.mark.parametrize("file", TESTS, ids=[file.name for file in TESTS])
def test_tests_import_helpers_but_no_other_tests(file):
    for name in imported(ast.walk(parsed(file))):
        first, *rest = name.split(".")
        assert not first.startswith("test_") and first != "conftest"
        assert first != "tests" or not rest or rest[0] == "helpers", name


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "import addgpt.task",
        "import addgpt.cli.main",
        "from addgpt.task_lookup import load_task, task_names; [*map(load_task, task_names())]",
        "import " + ", ".join(name for name in FILES if name.startswith("analysis")),
    ],
)
def test_torch_is_not_loaded_by(statement):
    code = f"import sys; {statement}; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.slow
@pytest.mark.parametrize("module", FILES)
def test_nothing_happens_at_import_but_definitions(module):
    quiet = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in parsed(FILES[module]).body:
        text = ast.unparse(node)
        guard = isinstance(node, ast.If) and ("__main__" in text or "TYPE_CHECKING" in text)
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        started = module == "addgpt.__main__"
        assert isinstance(node, quiet) or guard or docstring or started, text


@pytest.mark.slow
def test_loading_a_model_does_not_load_the_compiler():
    code = (
        "import sys; from addgpt.runs.run import SHIPPED, Run; Run(SHIPPED).model();"
        "from addgpt.runs.checkpoint import shapes; from addgpt.runs.resolve import configure;"
        "shapes(configure('add', {}).model);"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "False"


def test_each_package_is_asked_for_once():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].split()
    names = [line.partition(">=")[0] for line in lines]
    assert len(names) == len(set(names)) > 5
