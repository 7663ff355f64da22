"""Keras network definitions. A manifest gives the name and the arguments of a network."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from toolkit.errors import InputError
from toolkit.quiet import import_tensorflow
from toolkit.registry import unknown

# The arguments that a manifest may set: type, smallest and largest value. The limits bound the memory use.
_ARGUMENTS: dict[str, dict[str, tuple[type, float, float]]] = {
    "inception_resnet_v1": {
        "embedding_size": (int, 1, 4096),
        "width": (float, 0.05, 4.0),
        "input_side": (int, 75, 4096),
        "folded": (bool, 0, 1),
        "averaged": (int, 1, 8),
    },
    "unet": {"width": (float, 0.05, 4.0), "levels": (int, 1, 6), "shuffle": (int, 1, 4)},
    "red30": {"width": (int, 4, 256)},
    "dncnn": {"width": (int, 4, 256), "depth": (int, 3, 64), "folded": (bool, 0, 1)},
}
# By default a network accepts any input size, because the manifest already states the size of crops.
_DEFAULTS: dict[str, dict[str, Any]] = {"inception_resnet_v1": {"input_side": None}}


def build(name: str, **arguments: Any) -> Any:
    """Build the Keras model `name`. Keras is imported only when this function is called.

    Args:
        name: the name of the network, which is also the name of its module and of the function in this module.
        arguments: arguments of this function. Missing arguments have the network's defaults, except that the input
            may have any size.

    Raises:
        InputError: the network or an argument is unknown, or a value is out of range.
    """
    if name not in _ARGUMENTS:
        raise InputError(unknown("network", name, _ARGUMENTS))
    allowed = _ARGUMENTS[name]
    for key, value in arguments.items():
        if key not in allowed:
            raise InputError(f"network {name}: " + unknown("argument", key, allowed))
        kind, low, high = allowed[key]
        of_kind = type(value) is kind or (kind is float and type(value) is int)
        if not of_kind or not low <= value <= high:
            raise InputError(f"network {name}: {key} must be {kind.__name__} from {low} to {high}, not {value!r}")
    return getattr(_module(name), name)(**{**_DEFAULTS.get(name, {}), **arguments})


def multiple_of(name: str, **arguments: Any) -> int:
    """Return the number that the sides of the input of the network with these arguments must be multiples of."""
    multiple = getattr(_module(name), "multiple", None)
    return 1 if multiple is None else int(multiple(**arguments))


def _module(name: str) -> ModuleType:
    import_tensorflow()
    return importlib.import_module(f"{__name__}.{name}")
