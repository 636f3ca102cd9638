"""Imports run one way, as the design says, and what needs no torch does not load it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("addgpt", "tasks", "analysis")
STAGES = [
    {"config"},
    {"task", "device"},
    {"model"},
    {"runs", "generation"},
    {"evaluation", "calculator"},
    {"training"},
    {"sweep"},
    {"cli"},
]


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for p in PACKAGES for file in sorted((ROOT / p).rglob("*.py"))}


def imports(module: str, top_level: bool = False) -> Iterator[str]:
    """Modules that a module imports by statement, full names; inside functions too if asked."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in FILES else node.module


def package(name: str) -> str:
    return name.partition(".")[0]


def modules(of: str) -> list[str]:
    return [name for name in FILES if package(name) == of]


def within(name: str, parts: set[str]) -> bool:
    """Whether a module is one of these parts of addgpt, or in one that is a package."""
    return any(f"{name}.".startswith(f"addgpt.{part}.") for part in parts)


def reachable(module: str) -> set[str]:
    """All of addgpt that a module imports, directly or through others."""
    found, open_ends = set(), [module]
    while open_ends:
        for name in imports(open_ends.pop()):
            if name in FILES and package(name) == "addgpt" and name not in found:
                found.add(name)
                open_ends.append(name)
    return found - {"addgpt"}


def test_the_packages_are_found():
    assert all(len(modules(of)) > 1 for of in PACKAGES)


@pytest.mark.parametrize("module", modules("tasks"))
def test_tasks_import_the_contract_and_each_other_alone(module):
    for name in imports(module):
        if package(name) in PACKAGES:
            assert package(name) == "tasks" or name in (
                "addgpt.task",
                "addgpt.config.schema",
                "addgpt.runs.files",
            ), name
        assert package(name) != "torch"


@pytest.mark.parametrize("module", modules("addgpt"))
def test_the_library_knows_no_task_by_name(module):
    assert "tasks" not in {package(name) for name in imports(module)}
    reaches = "import_module" in FILES[module].read_text(encoding="utf-8")
    assert not reaches or module in ("addgpt.task", "addgpt.cli.main")


@pytest.mark.parametrize("module", modules("addgpt"))
def test_the_library_reaches_analysis_only_inside_a_command(module):
    command = module.startswith("addgpt.cli.")
    found = {package(name) for name in imports(module, top_level=command)}
    assert "analysis" not in found


@pytest.mark.parametrize("module", modules("addgpt"))
def test_no_module_imports_itself_through_others(module):
    assert module not in reachable(module)


@pytest.mark.parametrize("stage", range(len(STAGES)))
def test_imports_run_one_way(stage):
    later = set().union(*STAGES[stage + 1 :])
    mine = [module for module in FILES if within(module, STAGES[stage])]
    assert len(mine) >= len(STAGES[stage])
    for module in mine:
        assert not [name for name in reachable(module) if within(name, later)], module


@pytest.mark.parametrize("module", modules("analysis"))
def test_analysis_imports_neither_torch_nor_training(module):
    training = {
        "model",
        "runs.run",
        "runs.checkpoint",
        "generation",
        "training",
        "sweep",
        "calculator",
    }
    for name in imports(module):
        assert package(name) not in ("torch", "tasks", "safetensors")
        if package(name) == "addgpt":
            assert not [n for n in {name} | reachable(name) if within(n, training)], name


@pytest.mark.parametrize(
    "statement",
    [
        "import addgpt.task",
        "import addgpt.cli.main",
        "from addgpt.task import load_task, task_names; [load_task(n) for n in task_names()]",
        "import " + ", ".join(modules("analysis")),
    ],
)
def test_torch_is_not_loaded_by(statement):
    code = f"import sys; {statement}; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("module", FILES)
def test_nothing_happens_at_import_but_definitions(module):
    quiet = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in ast.parse(FILES[module].read_text(encoding="utf-8")).body:
        text = ast.unparse(node)
        guard = isinstance(node, ast.If) and ("__main__" in text or "TYPE_CHECKING" in text)
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        started = module == "addgpt.__main__"
        assert isinstance(node, quiet) or guard or docstring or started, text


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
