"""Network definitions in Keras, built by the name and arguments that a manifest gives."""

from __future__ import annotations

import importlib
from typing import Any

from toolkit.errors import InputError
from toolkit.registry import unknown

# The arguments that a manifest may set: type, smallest and largest value. They bound the memory that is taken.
_ARGUMENTS: dict[str, dict[str, tuple[type, float, float]]] = {
    "inception_resnet_v1": {
        "embedding_size": (int, 1, 4096),
        "width": (float, 0.05, 4.0),
        "input_side": (int, 75, 4096),
        "folded": (bool, 0, 1),
    },
    "unet": {"width": (float, 0.05, 4.0)},
    "red30": {"width": (int, 4, 256)},
    "dncnn": {"width": (int, 4, 256), "depth": (int, 3, 64), "folded": (bool, 0, 1)},
}
# A manifest states the crop's sides itself, so that the network takes any unless it is told otherwise.
_DEFAULTS: dict[str, dict[str, Any]] = {"inception_resnet_v1": {"input_side": None}}


def build(name: str, **arguments: Any) -> Any:
    """Build the Keras model `name`; Keras is imported here and not before.

    Args:
        name: name of the network, of its module and of the function in it.
        arguments: passed on; those left out have the network's defaults, but the input's sides are free.

    Raises:
        InputError: there is no such network or argument, or a value is out of range.
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
    module = importlib.import_module(f"{__name__}.{name}")
    return getattr(module, name)(**{**_DEFAULTS.get(name, {}), **arguments})


def multiple_of(name: str) -> int:
    """What the sides of the network's input must be multiples of."""
    return int(getattr(importlib.import_module(f"{__name__}.{name}"), "MULTIPLE", 1))
