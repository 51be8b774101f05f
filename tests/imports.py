"""Read every import of the tree without running it: what may import what, and what not.

The house is built on one direction::

    bench, tests -> minidnn.cli -> minidnn.measure -> minidnn.models -> minidnn -> minidnn.kernels

Imports inside functions and under ``if TYPE_CHECKING`` count like any other.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# From the bottom up; a file may import its own area and those before it.
AREAS = (
    "minidnn.kernels",
    "minidnn",
    "minidnn.models",
    "minidnn.measure",
    "minidnn.cli",
    "tests, bench",
)
FOLDERS = ("kernels", "minidnn", "models", "tests", "bench")
FRAMEWORKS = {
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "tensorflow",
    "keras",
    "jax",
}
COMMON_NAMES = {"kernels", "models"}
KERNEL_NEEDS = {"numpy", "numba"}
# Packages that a single kernel file needs besides.
KERNEL_EXCEPTIONS = {
    "kernels/jit.py": {"threadpoolctl"},
    "kernels/cache.py": {"platformdirs"},
    "kernels/simd.py": {"llvmlite"},
    "kernels/tile.py": {"llvmlite"},
    "kernels/atomic.py": {"llvmlite"},
    "kernels/panel_tile.py": {"llvmlite"},
    "kernels/halves_tile.py": {"llvmlite"},
    "kernels/int8/taps.py": {"llvmlite"},
    "kernels/int8/tile.py": {"llvmlite"},
    "kernels/int8/vectors.py": {"llvmlite"},
}


@dataclass(frozen=True)
class Import:
    """One imported module, as an absolute dotted name."""

    path: str
    line: int
    name: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} imports {self.name}"


def sources(root: Path) -> Iterator[Path]:
    """Yield the project's Python files; the links to kernels and models are not followed."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).parts
            if parts[:2] not in (("minidnn", "kernels"), ("minidnn", "models")):
                yield path


def module_name(path: str) -> str:
    """Return the name under which a file is imported: kernels/prelu.py is minidnn.kernels.prelu."""
    parts = path.removesuffix(".py").split("/")
    if parts[0] in COMMON_NAMES:
        parts = ["minidnn", *parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def area(module: str) -> int | None:
    """Return a module's place in `AREAS`, None if it is not the project's."""
    parts = module.split(".")
    if parts[0] in ("tests", "bench"):
        return len(AREAS) - 1
    if parts[0] != "minidnn":
        return None
    name = "minidnn.cli" if parts[1:] == ["__main__"] else ".".join(parts[:2])
    return AREAS.index(name) if name in AREAS else AREAS.index("minidnn")


def imports(root: Path) -> Iterator[Import]:
    """Yield every import statement, and every ``import_module("literal")``."""
    for path in sources(root):
        where = path.relative_to(root).as_posix()
        package = module_name(where).split(".")
        if path.name != "__init__.py":
            package = package[:-1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in _imported(node, package):
                yield Import(where, getattr(node, "lineno", 0), name)


def _imported(node: ast.AST, package: list[str]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = package[: len(package) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        # `from minidnn import models` imports minidnn.models; `from x import name` also x.
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else None
        called = node.func.id if isinstance(node.func, ast.Name) else called
        if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
            return [node.args[0].value]
    return []


def problems(root: Path) -> list[str]:
    """Return one line for every import that breaks a rule of the house."""
    return [f"{found}: {rule}" for found in imports(root) for rule in _broken_by(found)]


def _broken_by(found: Import) -> Iterator[str]:
    here, there = area(module_name(found.path)), area(found.name)
    top = found.name.split(".")[0]
    installed = not found.path.startswith(("tests/", "bench/"))
    if here is not None and there is not None and there > here:
        yield f"{AREAS[here]} may not import {AREAS[there]}"
    if top in COMMON_NAMES:
        yield f"{top} is imported as minidnn.{top} only"
    if installed and top in FRAMEWORKS:
        yield "other frameworks are oracles of tests and rivals of benches, no part of minidnn"
    if found.path.startswith("kernels/") and there is None:
        allowed = KERNEL_NEEDS | KERNEL_EXCEPTIONS.get(found.path, set())
        if top not in allowed and top not in sys.stdlib_module_names:
            yield f"a kernel imports {', '.join(sorted(allowed))} and the standard library"
    if here == AREAS.index("minidnn") and top in ("numba", "llvmlite"):
        yield "loops that need a compiler live in kernels"
