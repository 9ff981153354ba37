"""Modules that hold modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .module import Module


class Container(Module):
    """Modules under names that need not be identifiers."""

    def _named(self) -> dict[str, Module]:
        return self.__dict__.setdefault("_items", {})

    def _entries(self) -> Iterator[tuple[str, Any]]:
        yield from super()._entries()
        yield from self._named().items()

    def _put(self, name: str, module: Any) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"[{type(self).__name__}] expects Modules, got {type(module).__name__}")
        self._named()[name] = module
        self._changed()

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self._named() and isinstance(value, Module):
            self._put(name, value)
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        items = self.__dict__.get("_items", {})
        if name in items:
            return items[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __copy__(self) -> Any:
        twin = type(self).__new__(type(self))
        twin.__setstate__({**self.__getstate__(), "_items": dict(self._named())})
        return twin

    def __len__(self) -> int:
        return len(self._named())


class _Ordered(Container):
    """Modules in order, numbered from 0 unless they have names."""

    def __iter__(self) -> Iterator[Module]:
        return iter(list(self._named().values()))

    def _key(self, index: Any) -> str:
        n = len(self)
        if isinstance(index, bool) or not hasattr(index, "__index__"):
            raise TypeError(f"[{type(self).__name__}] an index is an integer or a slice, got {index!r}")
        i = index.__index__()
        if not -n <= i < n:
            raise IndexError(f"[{type(self).__name__}] index {i} is out of range for {n} modules")
        return list(self._named())[i]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            part = type(self).__new__(type(self))
            for name, module in list(self._named().items())[index]:
                part._put(name, module)
            return part
        return self._named()[self._key(index)]

    def __setitem__(self, index: int, module: Module) -> None:
        self._put(self._key(index), module)

    def __delitem__(self, index: Any) -> None:
        names = list(self._named())[index] if isinstance(index, slice) else [self._key(index)]
        left = [(name, m) for name, m in self._named().items() if name not in names]
        numbered = all(name.isdigit() for name in self._named())
        self.__dict__["_items"] = {str(i) if numbered else name: m for i, (name, m) in enumerate(left)}
        self._changed()

    def append(self, module: Module) -> Any:
        """Add a module at the end; returns self."""
        self._put(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Add modules at the end; returns self."""
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Put a module before the one at ``index``, all numbered anew; returns self."""
        modules = list(self)
        modules.insert(index, module)
        self.__dict__["_items"] = {}
        return self.extend(modules)


class Sequential(_Ordered):
    """Modules one after the other: each takes what the one before gives.

    Args:
        modules: Modules, named "0", "1", ...; or one dict that names them.

    ``model[1]`` is a module, ``model[:2]`` a Sequential of the same modules; ``append``, ``insert`` and ``del`` change
    it.

    Raises:
        TypeError: an argument is no Module.

    >>> from pybackprop import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> list(model.state_dict())
    ['0.weight', '0.bias', '2.weight', '2.bias']
    >>> model
    Sequential(
      (0): Linear(in_features=4, out_features=8, bias=True)
      (1): ReLU()
      (2): Linear(in_features=8, out_features=3, bias=True)
    )
    """

    def __init__(self, *modules: Any) -> None:
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self._put(_checked_name("Sequential", name), module)
        else:
            self.extend(modules)

    def forward(self, *args: Any) -> Any:
        if not len(self):
            return args[0] if len(args) == 1 else args
        first, *rest = self
        x = first(*args)
        for module in rest:
            x = module(x)
        return x


class ModuleList(_Ordered):
    """A list of Modules whose parameters belong to the model that holds it.

    >>> from pybackprop import nn
    >>> len(nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)]))
    2
    """

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self.extend(modules)

    def forward(self, *args: Any) -> Any:
        raise TypeError("[ModuleList] cannot be called: call its modules in the forward of the module that holds it")


class ModuleDict(Container):
    """A dict of Modules whose parameters belong to the model that holds it.

    >>> from pybackprop import nn
    >>> list(nn.ModuleDict({"a": nn.Linear(2, 2, bias=False)}).state_dict())
    ['a.weight']
    """

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        self.update(modules or {})

    def update(self, modules: Mapping[str, Module]) -> None:
        """Add or replace modules."""
        for name, module in modules.items():
            self[name] = module

    def __getitem__(self, name: str) -> Module:
        return self._named()[name]

    def __setitem__(self, name: str, module: Module) -> None:
        self._put(_checked_name("ModuleDict", name), module)

    def __delitem__(self, name: str) -> None:
        del self._named()[name]
        self._changed()

    def __contains__(self, name: object) -> bool:
        return name in self._named()

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._named()))

    def keys(self) -> Any:
        """The names."""
        return self._named().keys()

    def values(self) -> Any:
        """The modules."""
        return self._named().values()

    def items(self) -> Any:
        """(name, module) pairs."""
        return self._named().items()

    def forward(self, *args: Any) -> Any:
        raise TypeError("[ModuleDict] cannot be called: call its modules in the forward of the module that holds it")


def _checked_name(who: str, name: Any) -> str:
    if not isinstance(name, str) or not name or "." in name:
        raise ValueError(f"[{who}] a module's name is a string without dots, got {name!r}")
    return name
