"""Module: the base class of layers, models and losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from .. import _core
from .._tensor import Tensor
from .._trace import flatten, lift_outputs, specs_of
from .._tracer import Tracer, current, prefix
from .parameter import Buffer, Parameter, Stored, as_array
from .running import Programs

if TYPE_CHECKING:
    from .summary import Summary

Self = TypeVar("Self", bound="Module")

_PLAIN = (int, float, str, bool, type(None))
_PRIVATE = ("_programs", "_stamp", "_last_specs")  # not part of a copy or a pickle


def _same_plain(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple):
        return len(a) == len(b) and all(_same_plain(x, y) for x, y in zip(a, b, strict=True))
    return isinstance(a, _PLAIN) and a == b


class LoadResult(NamedTuple):
    """What ``load_state_dict(strict=False)`` passed over."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """A layer, a model or a loss: parameters as attributes, and a ``forward`` written with differentiable operations.

    ``super().__init__()`` is allowed and not needed. Attributes that are Parameters, Buffers or Modules are found in
    the order in which they were set. Setting any attribute (a rate, a layer) makes the programs of this model be traced
    anew; an array assigned to a Parameter or Buffer is written into it.

    Calling a module on arrays runs it: in inference, unless ``training=True`` (dropout and batch statistics; running
    statistics are not changed by a call). ``forward`` itself is run on Tensors, once for each set of input shapes.

    >>> import numpy as np
    >>> from pybackprop import nn
    >>> class Residual(nn.Module):
    ...     def __init__(self, width):
    ...         self.fc = nn.Linear(width, width)
    ...     def forward(self, x):
    ...         return x + self.fc(x).relu()
    >>> model = Residual(3)
    >>> model(np.ones((2, 3))).shape
    (2, 3)
    >>> [name for name, _ in model.named_parameters()]
    ['fc.weight', 'fc.bias']
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes, on Tensors."""
        raise TypeError(f"{type(self).__name__} has no forward method: define what it computes in forward(self, x)")

    def __call__(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        """Run on arrays, or take part in a trace on Tensors.

        Args:
            args, kwargs: arrays (floats of any width; integers are labels or ids), or tuples, lists and dicts of them.
            training: run the training program. Not allowed inside ``forward`` or an objective.

        Returns:
            What ``forward`` returns, with arrays in place of Tensors. A row has the same bits whatever batch it comes
            in.

        Raises:
            ValueError: shapes do not fit, or integers are out of range.
            TypeError: an argument does not hold numbers of the expected kind.
        """
        tracer = current()
        if tracer is None:
            return self._compiled().run(args, kwargs, bool(training))
        if training is not None:
            raise ValueError(
                f"{prefix(type(self).__name__)}training= belongs to the outermost call: a program is for training or "
                "for inference as a whole"
            )
        return self._call_traced(tracer, args, kwargs)

    def _call_traced(self, tracer: Tracer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        def lift(x: Any) -> Any:
            return tracer.lift(x, integer=x.dtype.kind in "iu") if isinstance(x, np.ndarray) else x

        tracer.enter(self)
        try:
            output = self.forward(*map(lift, args), **{name: lift(x) for name, x in kwargs.items()})
            output = lift_outputs(tracer, output, f"{tracer.place}.forward")
        finally:
            tracer.leave()
        tracer.name(self, output, flatten(output)[0])
        specs = specs_of((args, kwargs))
        if specs is not None:
            self.__dict__["_last_specs"] = specs  # for summary()
        return output

    # Attributes.

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            raise TypeError(
                f"[{type(self).__name__}] {name}: a Tensor cannot be kept in a Module, it lives only while the model "
                "is being traced: return it from forward instead"
            )
        old = self.__dict__.get(name)
        if isinstance(old, Stored) and value is not None and not isinstance(value, (Stored, Module)):
            self._write(name, old, value)
            return
        if name in self.__dict__ and (value is old or _same_plain(value, old)):
            return
        object.__setattr__(self, name, value)
        self._changed()

    def _write(self, name: str, stored: Stored, value: Any) -> None:
        array = as_array(value, stored.dtype, f"[{type(self).__name__}] {name}")
        if array.shape != stored.shape:
            raise ValueError(
                f"[{type(self).__name__}] {name} has shape {stored.shape}, got values of shape {array.shape}"
            )
        stored.assign(array)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        self._changed()

    def _changed(self) -> None:
        """The structure of this module is another one now."""
        self.__dict__["_stamp"] = _core.bump_version()

    def register_buffer(self, name: str, array: Any) -> None:
        """Make ``array`` part of the module's state under ``name``: saved, loaded and usable in ``forward``, not
        trained.

        Integer arrays are kept as int64, others as float32.
        """
        if not name.isidentifier():
            raise ValueError(f"register_buffer expects a name that can be an attribute, got {name!r}")
        self.__dict__.pop(name, None)
        setattr(self, name, Buffer(array))

    # The tree.

    def _entries(self) -> Iterator[tuple[str, Any]]:
        yield from list(self.__dict__.items())  # a copy: another thread may be about to call the module the first time

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of the modules directly inside, each module once."""
        seen: set[int] = set()
        for name, value in self._entries():
            if isinstance(value, Module) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def children(self) -> Iterator[Module]:
        """The modules directly inside."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(dotted name, module) of this module (its name is ``prefix``) and all inside, each module once."""
        return self._named_modules(prefix, set())

    def _named_modules(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, child in self._entries():
            if isinstance(child, Module):
                yield from child._named_modules(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        """This module and all inside."""
        return (module for _, module in self.named_modules())

    def _named_stored(self, kind: type[Any], prefix: str, recurse: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix) if recurse else [(prefix, self)]:
            for name, value in module._entries():
                if isinstance(value, kind) and id(value) not in seen:
                    seen.add(id(value))
                    yield (f"{path}.{name}" if path else name), value

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, Parameter), in PyTorch's order. A tied Parameter comes once, under its first name."""
        return self._named_stored(Parameter, prefix, recurse)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The Parameters, each once."""
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Buffer]]:
        """(dotted name, Buffer), in PyTorch's order."""
        return self._named_stored(Buffer, prefix, recurse)

    def buffers(self, recurse: bool = True) -> Iterator[Buffer]:
        """The Buffers, each once."""
        return (b for _, b in self.named_buffers(recurse=recurse))

    def _signature(self) -> tuple[int, ...]:
        """Changes when a module of this tree changes an attribute, or a Parameter is frozen or converted."""
        stamps: list[int] = []
        for module in self.modules():
            stamps.append(module.__dict__.get("_stamp", 0))
            stamps += [value._stamp for _, value in module._entries() if isinstance(value, Stored)]
        return tuple(stamps)

    def _compiled(self) -> Programs:
        """The inference programs of the model as it is now."""
        programs: Programs | None = self.__dict__.get("_programs")
        version = _core.version()
        if programs is None or programs.version != version:
            signature = self._signature()
            if programs is None or programs.signature != signature:
                programs = self.__dict__["_programs"] = Programs(self, signature)
            programs.version = version
        return programs

    # State.

    def _named_state(self, prefix: str = "") -> Iterator[tuple[str, Stored]]:
        """Own parameters, own buffers, then children; what is tied comes under each of its names."""
        for kind in (Parameter, Buffer):
            for name, value in self._entries():
                if isinstance(value, kind):
                    yield prefix + name, value
        for name, child in self._entries():
            if isinstance(child, Module):
                yield from child._named_state(f"{prefix}{name}.")

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and buffers, in PyTorch's order, layout and names."""
        own = dict(self._named_state())
        return dict(zip(own, _core.read_all([stored._param for stored in own.values()]), strict=True))

    def load_state_dict(self, state: Any, strict: bool = True) -> LoadResult:
        """Write a ``state_dict`` into this model: all of it, or nothing if something does not fit.

        Args:
            state: mapping of names to array-likes.
            strict: every key must be there, and none besides. False passes over the difference.

        Returns:
            ``(missing_keys, unexpected_keys)``, both empty if ``strict``.

        Raises:
            ValueError: names the first key that is missing, unexpected, or of another shape.
            TypeError: a value does not hold numbers of the right kind.
        """
        own = dict(self._named_state())
        who = type(self).__name__
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        if strict and missing:
            raise ValueError(
                f"[load_state_dict] {who} has {missing[0]!r}, which is missing in the state ({len(state)} keys)"
            )
        if strict and unexpected:
            raise ValueError(
                f"[load_state_dict] the state has {unexpected[0]!r}, which {who} ({len(own)} keys) does not have"
            )
        writes: list[tuple[Stored, np.ndarray]] = []
        for name, stored in own.items():
            if name in state:
                array = as_array(state[name], stored.dtype, f"[load_state_dict] {name!r}")
                if array.shape != stored.shape:
                    raise ValueError(
                        f"[load_state_dict] {name!r} has shape {stored.shape} in {who}, and {array.shape} in the state"
                    )
                writes.append((stored, array))
        _core.write_all([stored._param for stored, _ in writes], [array for _, array in writes])
        return LoadResult(missing, unexpected)

    def astype(self: Self, dtype: Any) -> Self:
        """Convert floating-point parameters and buffers to ``"float32"`` or ``"float64"``, in place; returns self."""
        name = np.dtype(dtype).name
        if name not in ("float32", "float64"):
            raise ValueError(f"[{type(self).__name__}] astype expects float32 or float64, got {name}")
        for _, stored in self._named_state():
            stored._convert(name)
        return self

    def freeze(self: Self) -> Self:
        """Set ``trainable = False`` on all parameters; returns self."""
        return self._set_trainable(False)

    def unfreeze(self: Self) -> Self:
        """Set ``trainable = True`` on all parameters; returns self."""
        return self._set_trainable(True)

    def _set_trainable(self: Self, value: bool) -> Self:
        for p in self.parameters():
            p.trainable = value
        return self

    def apply(self: Self, fn: Callable[[Module], Any]) -> Self:
        """Call ``fn(module)`` on every module inside, then on this one; returns self."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _PRIVATE}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._changed()

    # For reading.

    def summary(self, *inputs: Any) -> Summary:
        """A table of the modules: output shapes, parameters, memory, multiply-adds.

        Args:
            inputs: for each argument of ``forward`` its full shape (with the batch), or an array (which also says
                whether it holds integers). Without any, the shapes of the last call that was not run before, in
                ``model(x)`` or in training; before any call, the table has no shapes.

        Returns:
            A :class:`Summary`, which ``print`` shows, and a notebook as HTML; a row is about the module without those
            inside, memory is that of its parameters, buffers and output.

        Raises:
            ValueError, TypeError: the shapes do not fit; as a call with such arrays.

        >>> from pybackprop import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> print(model.summary((32, 4)))
        Module         Output shape  Parameters  Trainable    Memory  Multiply-adds
        ---------------------------------------------------------------------------
        Sequential     (32, 3)
          (0): Linear  (32, 8)               40  yes        1.16 KiB          1,024
          (1): ReLU    (32, 8)                0                1 KiB              0
          (2): Linear  (32, 3)               27  yes           492 B            768
        ---------------------------------------------------------------------------
        67 parameters: 67 trainable, 0 frozen; 268 B with buffers
        a call with inputs (32, 4): 1,792 multiply-adds, 1.88 KiB of working memory
        """
        from .summary import summarize

        return summarize(self, inputs)

    def extra_repr(self) -> str:
        """The arguments shown by ``repr``."""
        return ""

    def __repr__(self) -> str:
        lines = [f"({name}): {child!r}" for name, child in self.named_children()]
        if not lines:
            return f"{type(self).__name__}({self.extra_repr()})"
        body = "\n".join(lines).replace("\n", "\n  ")
        extra = f"\n  {self.extra_repr()}" if self.extra_repr() else ""
        return f"{type(self).__name__}({extra}\n  {body}\n)"
