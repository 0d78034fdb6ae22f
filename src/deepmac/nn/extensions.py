"""Parts of a network that somebody else wrote, named by the path of their class.

``my_package.MyHead`` in a setting that a person typed is imported. In a file (a checkpoint, a
model) it is only looked up among the modules that are imported already, or whose package the
environment variable ``DEEPMAC_EXTENSIONS`` names: a file alone never chooses what runs.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

VARIABLE = "DEEPMAC_EXTENSIONS"
"""Packages, parted by commas, whose classes models may name."""


def is_path(name: str) -> bool:
    """Whether a name is a dotted path to something in a module."""
    parts = name.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def import_named(names: Iterable[str]) -> None:
    """Import the modules of dotted paths that a person typed; also from the working folder.

    Raises:
        ValueError: there is no such module, or importing it fails.
    """
    for name in filter(is_path, names):
        _import(name.rpartition(".")[0])


def named_class(path: str, kind: type, what: str) -> type[Any]:
    """The class of a dotted path.

    Args:
        path: ``package.module.Class``.
        kind: what it has to be a subclass of.
        what: for messages: "a mask head".

    Raises:
        ValueError: it is not imported, not there, or no such class.
    """
    module, _, name = path.rpartition(".")
    trusted = [part.strip() for part in os.environ.get(VARIABLE, "").split(",") if part.strip()]
    if module not in sys.modules and module.split(".")[0] in trusted:
        _import(module)
    if module not in sys.modules:
        raise ValueError(
            f"{path} is {what} of the module {module}, which is not imported: import it first, or "
            f"set {VARIABLE}={module.split('.')[0]} if you trust it"
        )
    found = getattr(sys.modules[module], name, None)
    if not (isinstance(found, type) and issubclass(found, kind)):
        raise ValueError(f"{path} is no subclass of {kind.__module__}.{kind.__qualname__}")
    return found


def made(kind: type[Any], path: str, **offered: Any) -> Any:
    """An instance, given those of the offered arguments that the constructor takes.

    Raises:
        ValueError: it cannot be made.
    """
    parameters = inspect.signature(kind).parameters
    all_of_them = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    given = {name: value for name, value in offered.items() if all_of_them or name in parameters}
    try:
        return kind(**given)
    except TypeError as error:
        raise ValueError(
            f"{path} cannot be made ({error}): its constructor is offered {', '.join(offered)}"
        ) from error


class RowsAlone(nn.Module):
    """A module that knows no validity of rows, in the place of one that does."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        out: Tensor = self.net(x)
        return out


def taking_validity(net: nn.Module) -> nn.Module:
    """``net`` if it is called as ``net(x, valid)``, else a wrapper that is."""
    count = len(inspect.signature(net.forward).parameters)
    return net if count > 1 else RowsAlone(net)


def _import(module: str) -> None:
    here = os.getcwd()
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        importlib.import_module(module)
    except Exception as error:  # somebody's code may raise whatever it likes
        reason = " ".join(str(error).split())
        raise ValueError(
            f"the module {module} cannot be imported ({type(error).__name__}: {reason}): check "
            "its name, and that it lies in the working folder or on PYTHONPATH"
        ) from error
    finally:
        if added:
            sys.path.remove(here)
