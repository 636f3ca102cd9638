"""Copies of the modules that an exported model needs, to stand beside it in one folder.

transformers loads code that comes with a model from one folder, and copies what it finds there as
`from .name import thing`. So the module `addgpt.model.gpt` becomes the file `addgpt_model_gpt.py`,
word for word but for its imports, and a stamp says of which version it is.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path

from addgpt.config.errors import UsageError

OURS = ("addgpt", "tasks")
FROM = re.compile(r"^(\s*)from ((?:addgpt|tasks)[\w.]*) import (\(.*?\)|[^\n(]*)", re.M | re.S)
MODULE = "THIS_MODULE"  # the name under which a copy offers itself
ITSELF = f"\n\nimport sys as _sys  # noqa: E402\n\n{MODULE} = _sys.modules[__name__]\n"


def bundled(source: str, version: str, own: dict[str, Path] | None = None) -> dict[str, str]:
    """A source text with its imports rewritten, as `""`, and the files that these name.

    Args:
        source: what is to stand in the folder; it imports what it needs.
        version: for the stamp on each file.
        own: files of modules that are no part of a package: tasks of a user's own.

    Raises UsageError for an import that cannot be copied.
    """
    files, todo, done = {"": _rewritten(source, own)}, _needed(source, own), set()
    while todo:
        module = todo.pop()
        if module in done:
            continue
        done.add(module)
        text = _file(module, own).read_text(encoding="utf-8")
        stamp = f"# {module} of addgpt {version}, copied with relative imports.\n"
        files[f"{_flat(module)}.py"] = stamp + _rewritten(text, own) + ITSELF
        todo += _needed(text, own)
    return files


def _needed(text: str, own: dict[str, Path] | None) -> list[str]:
    """The modules of ours that a source imports."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in OURS:
                    raise UsageError(f"`import {alias.name}` cannot be exported; use `from`")
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module.split(".")[0] in OURS or node.module in (own or {}):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                modules = [name for name in names if _is_module(name)]
                found += modules + ([node.module] if len(modules) < len(names) else [])
    return found


def _rewritten(text: str, own: dict[str, Path] | None) -> str:
    """A source whose imports of ours are relative, of files in the same folder."""

    def relative(match: re.Match) -> str:
        space, module, names = match.groups()
        listed = re.sub(r"#[^\n]*", "", names).strip("() \n")
        parts = [part.strip() for part in listed.split(",") if part.strip()]
        lines, plain = [], []
        for part in parts:
            name, _, other = part.partition(" as ")
            if _is_module(f"{module}.{name}"):
                copy = _flat(f"{module}.{name}")
                lines.append(f"{space}from .{copy} import {MODULE} as {other or name}")
            else:
                plain.append(part)
        if plain:
            lines.append(f"{space}from .{_flat(module)} import ({', '.join(plain)})")
        return "\n".join(lines)

    for module in own or {}:
        text = re.sub(rf"^from {re.escape(module)} import", f"from .{_flat(module)} import", text,
                      flags=re.M)  # fmt: skip
    return FROM.sub(relative, text)


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _file(module: str, own: dict[str, Path] | None) -> Path:
    if own and module in own:
        return own[module]
    loaded = sys.modules.get(module)
    origin = loaded.__file__ if loaded is not None else None
    spec = None if origin else importlib.util.find_spec(module)
    return Path(origin or str(spec and spec.origin))


def _flat(module: str) -> str:
    return module.replace(".", "_")
