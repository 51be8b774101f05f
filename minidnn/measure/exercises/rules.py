"""What a submission may import and use, read off its syntax tree before anything runs.

A rule that is broken is found by line. What gets past these rules at run time (a name put
together from pieces) meets a process in which minidnn and other libraries cannot be imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

MODULES = frozenset(
    [
        "__future__",
        "collections",
        "dataclasses",
        "enum",
        "functools",
        "itertools",
        "math",
        "numba",
        "numpy",
        "typing",
    ]
)
# Cannot be imported at all while a submission runs, whatever its text looks like.
CLOSED = [
    "minidnn",
    "kernels",
    "models",
    "torch",
    "torchvision",
    "scipy",
    "jax",
    "jaxlib",
    "tensorflow",
    "keras",
    "sklearn",
    "cupy",
    "onnxruntime",
    "onnx",
    "openvino",
    "cv2",
    "tinygrad",
    "mxnet",
    "numexpr",
    "numba_scipy",
]
# Ways around the rules: to run text, to reach the interpreter, files, or other processes.
_CALLS = frozenset(
    [
        "eval",
        "exec",
        "compile",
        "open",
        "__import__",
        "getattr",
        "setattr",
        "delattr",
        "globals",
        "locals",
        "vars",
        "breakpoint",
        "input",
        "__builtins__",
        "__loader__",
        "__spec__",
    ]
)
_ATTRIBUTES = frozenset(
    [
        # modules of the standard library that NumPy and Numba hold
        "builtins",
        "ctypes",
        "gc",
        "importlib",
        "inspect",
        "io",
        "linecache",
        "modules",
        "multiprocessing",
        "operator",
        "os",
        "pickle",
        "platform",
        "shutil",
        "signal",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "traceback",
        "warnings",
        # what else runs text, or code that is no Python
        "ExternalFunction",
        "ExternalFunctionPointer",
        "ForwardRef",
        "cffi_utils",
        "core",
        "ctypeslib",
        "cuda",
        "distutils",
        "extending",
        "f2py",
        "get_type_hints",
        "global_enum",
        "misc",
        "objmode",
        "pycc",
        "singledispatch",
        "singledispatchmethod",
        "testing",
        "update_wrapper",
        "wraps",
        # files
        "DataSource",
        "dump",
        "fromfile",
        "fromregex",
        "genfromtxt",
        "load",
        "loadtxt",
        "memmap",
        "open_memmap",
        "save",
        "savetxt",
        "savez",
        "savez_compressed",
        "tofile",
        # settings that the rung would meet too
        "config",
        "set_num_threads",
        "set_parallel_chunksize",
    ]
)
# Frames, from which a caller's variables can be read: of generators, coroutines, tracebacks.
_FRAMES = ("f_", "gi_", "cr_", "ag_", "tb_")


def broken(tree: ast.AST, forbidden: frozenset[str]) -> list[str]:
    """Return a line for every rule the file breaks, in order.

    Parameters
    ----------
    tree : ast.AST
    forbidden : frozenset of str
        Names that would be the exercise's answer.
    """
    imported = {name for node in ast.walk(tree) for name in _bound(node)}
    found = []
    for node in ast.walk(tree):
        for text in (
            *_imports(node, forbidden),
            *_uses(node, forbidden),
            *_changes(node, imported),
        ):
            found.append((getattr(node, "lineno", 0), text))
    return [f"line {line}: {text}" for line, text in sorted(set(found))]


def _bound(node: ast.AST) -> Iterator[str]:
    """Yield the names an import makes."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name.partition(".")[0]


def _imports(node: ast.AST, forbidden: frozenset[str]) -> Iterator[str]:
    names: list[tuple[str, str]] = []  # the module, and the whole name
    if isinstance(node, ast.Import):
        names = [(alias.name, alias.name) for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = "." * node.level + (node.module or "")
        names = [(base, f"{base}.{alias.name}") for alias in node.names]
    for module, name in names:
        top, *inner = name.split(".")
        if top not in MODULES:
            allowed = ", ".join(sorted(MODULES - {"__future__"}))
            yield f"imports {module}; allowed are {allowed}"
        elif "*" in inner:
            yield f"imports everything from {module}; name what you need"
        else:
            yield from (f"imports {name}" for part in inner if part in forbidden or _hidden(part))


def _hidden(name: str) -> bool:
    """Whether an attribute leads out of the exercise."""
    private = name.startswith("_") and name != "__name__"
    return private or name in _ATTRIBUTES or name.startswith(_FRAMES)


def _uses(node: ast.AST, forbidden: frozenset[str]) -> Iterator[str]:
    names = [node.attr] if isinstance(node, ast.Attribute) else []
    if isinstance(node, ast.MatchClass):  # `case object(attribute=name)` reads attributes too
        names = node.kwd_attrs
    for name in names:
        if name in forbidden:
            yield f"uses {name}, which would be the answer"
        elif _hidden(name):
            yield f"uses .{name}, which an exercise has no need of"
    if isinstance(node, ast.Name) and node.id in _CALLS:
        yield f"uses {node.id}, which an exercise has no need of"
    if (
        isinstance(node, ast.BinOp | ast.AugAssign)
        and isinstance(node.op, ast.MatMult)
        and "matmul" in forbidden
    ):
        yield "uses the operator @, which would be the answer"


def _changes(node: ast.AST, imported: set[str]) -> Iterator[str]:
    """Yield where a file changes what it imported, such as `np.where = ...`."""
    if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
        inner: ast.expr = node
        names: list[str] = []
        while isinstance(inner, ast.Attribute):
            names.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and inner.id in imported:
            whole = ".".join([inner.id, *reversed(names)])
            yield f"changes {whole[:80]}, which belongs to a library"
