"""Finding a task by its name, or by the file that defines it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
import typing
from pathlib import Path
from types import ModuleType
from typing import Any

from addgpt.config.errors import UsageError
from addgpt.config.settings import from_dict, parse
from addgpt.task import Task

TASKS = "addgpt.tasks"  # the entry point group of other packages' tasks


def task_names() -> list[str]:
    """The names of all tasks: one for each module of `tasks`."""
    spec = importlib.util.find_spec("tasks")
    ours = Path(__file__).resolve().parents[1] / "tasks"
    found = spec and (spec.origin or ", ".join(spec.submodule_search_locations or []))
    if found and ours.is_dir() and Path(found).resolve() != ours / "__init__.py":
        raise UsageError(
            f"another package is in the way: `tasks` is {found}, not {ours}; "
            "rename it, or keep its folder out of Python's path"
        )
    folders = spec.submodule_search_locations if spec else None
    return sorted(m.name for m in pkgutil.iter_modules(folders or []) if not m.ispkg)


def installed(group: str) -> dict[str, importlib.metadata.EntryPoint]:
    """What other packages offer under an entry point group, by name."""
    return {point.name: point for point in importlib.metadata.entry_points(group=group)}


def is_file(name: str) -> bool:
    """Whether a task is named by the file that defines it, `./double.py`."""
    return name.endswith(".py")


def short(name: str) -> str:
    """The name of a task without the folder of its file."""
    return Path(name).stem if is_file(name) else name


def lasting(name: str) -> str:
    """The name of a task as a run keeps it, good in any folder: of a file, the whole path."""
    return str(Path(name).expanduser().resolve()) if is_file(name) else name


def task_class(name: str) -> type[Task]:
    """The Task that module `tasks.NAME` or a file, `./double.py`, defines.

    The file is executed, and again when it has changed. Another package may offer a task by
    an entry point of the group `addgpt.tasks`. Raises ValueError.
    """
    if is_file(name):
        module, file = own_module(name), name
    else:
        names = task_names()
        if name not in names:
            return _installed_class(name, names)
        module, file = importlib.import_module(f"tasks.{name}"), f"tasks/{name}.py"
    return _only_task(module, file)


def _installed_class(name: str, names: list[str]) -> type[Task]:
    """The task of another package."""
    points = installed(TASKS)
    if name not in points:
        valid = ", ".join([*names, *points])
        file = Path(f"{name}.py")
        near = f"did you mean ./{file}?" if file.is_file() else "or a file such as ./mine.py"
        raise UsageError(f"unknown task {name!r}; valid: {valid}; {near}")
    found = loaded(points[name], f"task {name}")
    if isinstance(found, ModuleType):
        return _only_task(found, points[name].value)
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise UsageError(f"task {name} ({_origin(points[name])}) is not a Task but {found!r}")
    return found


def loaded(point: importlib.metadata.EntryPoint, what: str) -> Any:
    """What an entry point names. Raises UsageError, naming the package, if its code fails."""
    try:
        return point.load()
    except Exception as error:  # of somebody else's code, which may fail in any way
        told = isinstance(error, ImportError | AttributeError)
        kind = "" if told else f"{type(error).__name__}: "
        reason = " ".join(f"{kind}{error}".split())
        raise UsageError(f"{what} ({_origin(point)}) cannot be loaded: {reason}") from error


def _origin(point: importlib.metadata.EntryPoint) -> str:
    package = f"of the package {point.dist.name}: " if point.dist else ""
    return f"{package}{point.value}"


def _only_task(module: ModuleType, file: str) -> type[Task]:
    found = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, Task) and item.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise UsageError(f"{file} must define one Task, not {len(found)}")
    return found[0]


def attribute(name: str) -> Any:
    """What `mypackage.models:MyGPT` or `./mine.py:MyGPT` names. Raises ImportError, AttributeError
    or, of a file that cannot be read, UsageError."""
    where, _, thing = name.rpartition(":")
    return getattr(own_module(where) if is_file(where) else importlib.import_module(where), thing)


def own_module(name: str) -> ModuleType:
    """The module in a file; its name ends with the file's."""
    path = Path(lasting(name))
    try:
        source = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    digest = hashlib.sha256(source + str(path).encode()).hexdigest()[:12]
    name = f"task_{digest}.{path.stem}"
    if name not in sys.modules:
        module = sys.modules[name] = ModuleType(name)  # where dataclasses look for it
        module.__file__ = str(path)
        try:
            exec(compile(source, path, "exec"), vars(module))
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def load_task(name: str, options: dict[str, Any] | None = None) -> Task:
    """The task `name`, or of a file, with these options; text is parsed by the option's type.

    Raises UsageError naming the valid tasks, options or values.
    """
    cls = task_class(name)
    hints = typing.get_type_hints(cls)
    values = {
        key: parse(key, hints[key], value)
        if isinstance(value, str) and key in hints and hints[key] is not str
        else value
        for key, value in (options or {}).items()
    }
    return from_dict(cls, values, f"the options of {short(name)}")
