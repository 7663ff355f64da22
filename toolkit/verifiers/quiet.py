"""TensorFlow without its log noise, and with one clear line where it is missing."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from toolkit.errors import UnavailableError


def import_tensorflow() -> Any:
    """Import TensorFlow, silence it, and return the module.

    Raises:
        UnavailableError: TensorFlow is not installed.
    """
    if "tensorflow" not in sys.modules:  # read by its C++ parts when they are loaded, and never again
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UnavailableError(
            'this needs TensorFlow, which is not installed: pip install "sixpixels[tensorflow]"'
        ) from error
    tf.get_logger().setLevel(logging.ERROR)
    for name in ("absl", "tf2onnx", "h5py"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return tf
