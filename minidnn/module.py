"""`Module`, `Parameter`, `Buffer`, `Sequential`: models as trees, with PyTorch's names."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from minidnn.errors import InputError, StateDictError
from minidnn.tensor import Array, Tensor

M = TypeVar("M", bound="Module")


class Parameter(Tensor):
    """A tensor that is trained.

    Parameters
    ----------
    data : ndarray
    decay : bool
        Whether weight decay may act on it: true for full kernels and matrices, false for
        depthwise kernels, biases, batch norm and PReLU slopes.
    """

    __slots__ = ("decay",)

    def __init__(self, data: Array, decay: bool = True) -> None:
        super().__init__(data, requires_grad=True)
        self.decay = decay


class Buffer:
    """State that is saved but not trained, such as running statistics; any dtype."""

    __slots__ = ("data",)

    def __init__(self, data: Array) -> None:
        self.data = data


class _Path(threading.local):
    """The modules being called on this thread, outermost first."""

    def __init__(self) -> None:
        self.stack: list[Module] = []


_path = _Path()


def calling() -> tuple[Module, ...]:
    """Return the modules being called on this thread, outermost first."""
    return tuple(_path.stack)


class Module:
    """A layer or model: parameters, buffers and modules are found in its attributes.

    Assign them as attributes, singly or in lists, and write ``forward``::

        class Net(Module):
            def __init__(self):
                super().__init__()
                self.body = Sequential(Conv2d(3, 8, 3), PReLU(8))
                self.head = Linear(8, 10)

            def forward(self, x):
                return self.head(self.body(x).mean(axis=(1, 2)))
    """

    def __init__(self) -> None:
        self.training = True
        self._forward_hooks: list[Callable[[Module, tuple[Any, ...], Any], None]] = []
        self._chain: Callable[..., Any] | None = None  # set by `minidnn.fuse`

    def forward(self, *inputs: Any) -> Any:
        """Compute the output; subclasses define it."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward()")

    def __call__(self, *inputs: Any) -> Any:
        if "training" not in self.__dict__:
            raise RuntimeError(f"{type(self).__name__}.__init__ must call super().__init__() first")
        _path.stack.append(self)
        try:
            output = self.forward(*inputs) if self._chain is None else self._chain(self, *inputs)
        except InputError as error:
            # Every caller up the tree knows a longer path; the outermost has the last word.
            error.where = self._locate(error)
            raise
        finally:
            _path.stack.pop()
        for hook in self._forward_hooks:
            hook(self, inputs, output)
        return output

    def _locate(self, error: InputError) -> str:
        error.origin = error.origin or self
        path = next((name for name, m in self.named_modules() if m is error.origin), "")
        layer = type(error.origin).__name__
        return f"{path} ({layer})" if path else layer

    def register_forward_hook(
        self, hook: Callable[[Module, tuple[Any, ...], Any], None]
    ) -> Callable[[], None]:
        """Call ``hook(module, inputs, output)`` after every forward; returns what removes it."""
        self._forward_hooks.append(hook)
        return lambda: self._forward_hooks.remove(hook)

    # --- the tree -----------------------------------------------------------------

    def _members(self) -> Iterator[tuple[str, Any]]:
        """Yield (name, parameter, buffer or module) held directly, list items as name.0, name.1."""
        for name, value in self.__dict__.items():
            if isinstance(value, Parameter | Buffer | Module):
                yield name, value
            elif isinstance(value, list | tuple) and not name.startswith("_"):
                for i, item in enumerate(value):
                    if isinstance(item, Parameter | Buffer | Module):
                        yield f"{name}.{i}", item

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for the modules held directly."""
        return ((name, m) for name, m in self._members() if isinstance(m, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Yield (dotted path, module), this one first, in order of declaration, each once."""
        seen: set[int] = set()
        stack: list[tuple[str, Module]] = [(prefix, self)]
        while stack:
            path, module = stack.pop()
            if id(module) in seen:
                continue
            seen.add(id(module))
            yield path, module
            children = [(f"{path}.{n}" if path else n, m) for n, m in module.named_children()]
            stack.extend(reversed(children))

    def _named(self, kind: type[Any]) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, value in module._members():
                if isinstance(value, kind) and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{path}.{name}" if path else name), value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted path, parameter), each once."""
        return self._named(Parameter)

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """Yield (dotted path, buffer), each once."""
        return self._named(Buffer)

    def parameters(self) -> list[Parameter]:
        """Return all parameters in order of declaration."""
        return [p for _, p in self.named_parameters()]

    def modules(self) -> list[Module]:
        """Return this module and all below it."""
        return [m for _, m in self.named_modules()]

    # --- state --------------------------------------------------------------------

    def train(self: M, mode: bool = True) -> M:
        """Switch batch norm and dropout to training (or, with False, to evaluation)."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Switch to evaluation: running statistics, no dropout."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Set every gradient to zero in place."""
        for p in self.parameters():
            if p.grad is not None:
                p.grad.fill(0)

    def astype(self: M, dtype: DTypeLike) -> M:
        """Convert parameters and float buffers in place, e.g. to float64 for gradient checks."""
        for p in self.parameters():
            p.data, p.grad = p.data.astype(dtype), None
        for _, buffer in self.named_buffers():
            if buffer.data.dtype.kind == "f":
                buffer.data = buffer.data.astype(dtype)
        return self

    def state_dict(self) -> dict[str, Array]:
        """Return name -> array for all parameters and buffers: the arrays themselves, no copies."""
        state = {name: p.data for name, p in self.named_parameters()}
        return state | {name: b.data for name, b in self.named_buffers()}

    def load_state_dict(self, state: Mapping[str, Array], strict: bool = True) -> None:
        """Copy arrays into parameters and buffers, in place; all or nothing.

        Parameters
        ----------
        state : mapping of str to ndarray
        strict : bool
            Whether names missing here or there are an error.

        Raises
        ------
        StateDictError
            Naming every missing, unexpected or misshapen entry; the model is then unchanged.
        """
        own = self.state_dict()
        missing, extra = own.keys() - state.keys(), state.keys() - own.keys()
        wrong = [
            f"{name}: expected shape {own[name].shape} {own[name].dtype}, "
            f"got {np.shape(state[name])} {state[name].dtype}"
            for name in own
            if name in state
            and (own[name].shape != state[name].shape or own[name].dtype != state[name].dtype)
        ]
        problems = wrong + (
            [f"missing: {', '.join(sorted(missing))}"] * bool(missing)
            + [f"unexpected: {', '.join(sorted(extra))}"] * bool(extra)
            if strict
            else []
        )
        if problems:
            raise StateDictError(
                f"state dict does not fit {type(self).__name__}: " + "; ".join(problems)
            )
        for name, array in own.items():
            if name in state:
                array[...] = state[name]

    # --- printing -----------------------------------------------------------------

    def extra_repr(self) -> str:
        """Return what stands between the brackets of a layer without children."""
        return ""

    def __repr__(self) -> str:
        children = [f"({name}): {child!r}" for name, child in self.named_children()]
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        body = "\n".join(children).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {body}\n)"


class Sequential(Module):
    """Modules called one after the other; positional, or one dict of names."""

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        super().__init__()
        named: dict[str, object]
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            named = dict(modules[0])
        else:
            named = {str(i): module for i, module in enumerate(modules)}
        for name, module in named.items():
            if not isinstance(module, Module):
                raise TypeError(
                    f"Sequential: expected modules, got {type(module).__name__} for {name}"
                )
            if not name or "." in name or name in self.__dict__ or hasattr(Sequential, name):
                raise ValueError(f"Sequential: {name!r} cannot name a layer")
            self.__dict__[name] = module

    def __iter__(self) -> Iterator[Module]:
        return (m for _, m in self.named_children())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, index: int) -> Module:
        return list(self)[index]

    def forward(self, x: Any) -> Any:
        """Pass `x` through every module in order."""
        for module in self:
            x = module(x)
        return x
