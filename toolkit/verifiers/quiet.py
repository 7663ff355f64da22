"""TensorFlow without its log noise, and with one clear line where it is missing."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from toolkit.errors import UnavailableError

# TensorFlow's sums over another number of threads differ in the last digits: gradients would depend on the cores of a
# machine, and an audit on who carries out its jobs. ONNX Runtime's do not.
_THREADS = "4"


def settle_tensorflow() -> None:
    """Say in the environment how TensorFlow is to run here; it is read when TensorFlow loads, and never again."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", _THREADS)


def import_tensorflow() -> Any:
    """Import TensorFlow, silence it, make it Keras' backend, and return the module.

    It has 4 threads, whatever the machine has, unless TF_NUM_INTRAOP_THREADS says another number.

    Raises:
        UnavailableError: TensorFlow is not installed.
    """
    if "tensorflow" not in sys.modules:
        settle_tensorflow()
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UnavailableError(
            'this needs TensorFlow, which is not installed: pip install "sixpixels[tensorflow]"'
        ) from error
    for name in ("tensorflow", "absl", "tf2onnx", "h5py"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return tf
