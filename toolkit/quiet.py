"""Import of TensorFlow and gRPC without their log lines, and with a clear error if they are not installed."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from toolkit.errors import UnavailableError

# Set to anything, it shows the log lines of libraries and the traceback of every error.
DEBUG = "SIXPIXELS_DEBUG"
# TensorFlow's sums over another number of threads differ in the last digits. With the number fixed, gradients depend
# neither on the cores of a machine nor on which worker computes them. ONNX Runtime's results do not depend on threads.
# One thread is best for the few images of a step of an attack; an audit uses the other cores for other attacks.
_THREADS = "1"
_STANDARD_ERROR = 2


def settle_tensorflow() -> None:
    """Set the environment variables that TensorFlow reads when it loads, unless they are set already."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", _THREADS)


def import_tensorflow() -> Any:
    """Import TensorFlow silently, make it the backend of Keras, and return the module.

    TensorFlow computes each operation on 1 thread on any machine, unless TF_NUM_INTRAOP_THREADS says another number.
    Import TensorFlow, Keras, tf2onnx and MTCNN only after a call of this function.

    Raises:
        UnavailableError: TensorFlow is not installed.
    """
    if "tensorflow" in sys.modules:
        return sys.modules["tensorflow"]
    settle_tensorflow()
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        with silenced():
            import tensorflow as tf

            # The first operation sets TensorFlow up, which writes log lines too.
            tf.constant(0) + tf.constant(0)
    except ImportError as error:
        raise UnavailableError(
            'this needs TensorFlow, which is not installed: pip install "sixpixels[tensorflow]"'
        ) from error
    for name in ("tensorflow", "absl", "tf2onnx", "h5py"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return tf


def import_grpc(where: object) -> Any:
    """Import gRPC, and return the module. Its native code writes no log lines unless SIXPIXELS_DEBUG is set.

    Args:
        where: the start of the message: the file that asks for it.

    Raises:
        UnavailableError: grpcio is not installed.
    """
    if not os.environ.get(DEBUG):
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        import grpc
    except ImportError as error:
        raise UnavailableError(
            f'{where}: this needs grpcio, which is not installed: pip install "sixpixels[grpc]"'
        ) from error
    return grpc


@contextmanager
def silenced() -> Iterator[None]:
    """Drop everything that is written to standard error, by native code too; show it if the block raises an error.

    No environment variable silences the lines that TensorFlow's native code writes before its logging is set up.
    With SIXPIXELS_DEBUG set, nothing is dropped.
    """
    if os.environ.get(DEBUG):
        yield
        return
    sys.stderr.flush()
    shown = os.dup(_STANDARD_ERROR)
    with tempfile.TemporaryFile() as dropped:
        os.dup2(dropped.fileno(), _STANDARD_ERROR)
        try:
            yield
        except BaseException:
            dropped.seek(0)
            os.write(shown, dropped.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(shown, _STANDARD_ERROR)
            os.close(shown)
