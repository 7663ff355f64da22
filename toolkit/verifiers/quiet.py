"""TensorFlow without its log noise, and with one clear line where it is missing."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from toolkit.errors import UnavailableError


def import_tensorflow() -> Any:
    """Import TensorFlow, silence it, make it Keras' backend, and return the module.

    Raises:
        UnavailableError: TensorFlow is not installed.
    """
    # Both are read when the libraries load, and never again.
    if "tensorflow" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
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
