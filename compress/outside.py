"""Architectures of others: `model: {name: my_module:build, ...}`, where `build` is a function of a module that the user has allowed.

Importing a module runs its code, and a `model.yml` or an exported file may come from anybody. So a name with a colon in it is refused
unless its module was allowed in this very process: by running a recipe that names it, by `compress --allow-module`, or by
`compress.load(checkpoint, modules=[...])`. What lies beside a checkpoint, a recipe included, allows nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from inspect import isfunction
from pathlib import Path
from typing import Any, get_type_hints

import compress.models.registry as registry
from compress.models.contract import Algorithm

ALLOWED: ContextVar[frozenset[str]] = ContextVar("ALLOWED", default=frozenset())


@contextmanager
def allowing(*modules: str) -> Iterator[None]:
    """Until the block, or the decorated function, ends: `modules`, and whatever is allowed inside."""
    token = ALLOWED.set(ALLOWED.get().union(modules))
    try:
        yield
    finally:
        ALLOWED.reset(token)


def allow_own(config: Any) -> None:
    """Allow the module that a `model` section names, if any; for sections that the user has asked to be built."""
    name = name_of(config)
    if ":" in name:
        ALLOWED.set(ALLOWED.get() | {name.partition(":")[0]})


def name_of(config: Any) -> str:
    """The model's name, where there is one."""
    name = config.get("name") if isinstance(config, Mapping) else config
    return name if isinstance(name, str) else ""


def build(config: str | Mapping[str, Any]) -> Algorithm:
    """The algorithm of a `model` section: one of the registry's, or one by a function of an allowed module.

    Such a function is annotated to return an :class:`Algorithm`, and its keywords, each with a default, are held against their
    annotations as those of the registry's are. Raises ValueError for what the registry refuses, for a module that has not been allowed
    (before anything of it is imported) or is not there, and for a function of another kind.
    """
    if ":" not in name_of(config):
        return registry.build(config)
    keywords = {"name": config} if isinstance(config, str) else dict(config)
    factory = imported(keywords.pop("name"))
    algorithm = registry.checked(factory, keywords, "model")()
    if not isinstance(algorithm, Algorithm):
        raise ValueError(
            f"model: '{name_of(config)}' gave a {type(algorithm).__name__}; it must return a compress.models.contract.Algorithm."
        )
    return algorithm


def imported(name: str) -> Any:
    """The function `module:function`. A promise to return an algorithm is asked for, so that no other function there can be called."""
    module, _, function = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), function)):
        raise ValueError(f"model: '{name}' is not written `module:function`, such as my_module:build.")
    if module not in ALLOWED.get():
        raise ValueError(
            f"model: '{name}' is code outside of the workbench, and its module is not allowed here; where you trust '{module}', begin "
            f"with `compress --allow-module {module}`, or in Python give `modules=['{module}']` to `compress.load`."
        )
    try:
        factory = getattr(import_module(module), function, None)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"model: there is no module '{module}'; install it, or put its folder into the variable PYTHONPATH.") from None
    if not isfunction(factory) or get_type_hints(factory).get("return") is not Algorithm:
        raise ValueError(f"model: '{name}' is no function that is annotated to return a compress.models.contract.Algorithm.")
    return factory


def code_of(config: Any) -> str | None:
    """sha256 of the file that an allowed `module:function` is imported from; None for a name of the registry."""
    name = name_of(config)
    if ":" not in name:
        return None
    file = import_module(imported(name).__module__).__file__
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None
