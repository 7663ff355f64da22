"""Run by `translators.py` in another environment: values, a gradient and times of ONNX files by one translator.

    python translators_worker.py onnx2torch FOLDER

FOLDER has `NAME.onnx`, and `NAME.npz` with the input tensor and the weights of the sum whose gradient is wanted. The
results lie beside them as `NAME.TRANSLATOR.npz`, or `NAME.TRANSLATOR.txt` with the reason of a failure.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

REPEATS = 10
# From an input tensor and weights to the embedding and the gradient of the weighted sum.
Run = Callable[[Any, Any], tuple[Any, Any]]


def onnx2torch(path: Path, output: str) -> Run:
    """One function of PyTorch for each node; the module returns all outputs in their order."""
    torch, convert = importlib.import_module("torch"), importlib.import_module("onnx2torch").convert
    onnx = importlib.import_module("onnx")
    torch.set_num_threads(1)
    names = [value.name for value in onnx.load(path, load_external_data=False).graph.output]
    network = convert(str(path)).eval()

    def run(x: Any, weights: Any) -> tuple[Any, Any]:
        tensor = torch.tensor(x, requires_grad=True)
        found = network(tensor)
        embedding = found[names.index(output)] if isinstance(found, list | tuple) else found
        rows = embedding.reshape(weights.shape).float()
        (gradient,) = torch.autograd.grad((rows * torch.tensor(weights)).sum(), tensor)
        return rows.detach().numpy(), gradient.numpy()

    return run


def onnx2tf(path: Path, output: str) -> Run:
    """A Keras model, with the channels last."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    tf = importlib.import_module("tensorflow")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    model = importlib.import_module("onnx2tf").convert(
        input_onnx_file_path=str(path), output_folder_path=tempfile.mkdtemp(), not_use_onnxsim=True, non_verbose=True,
        verbosity="error", keep_shape_absolutely_input_names=["input"], disable_strict_mode=True,
        output_names_to_interrupt_model_conversion=[output],
    )  # fmt: skip

    @tf.function
    def run(x: Any, weights: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            found = model(x)
            found = found[0] if isinstance(found, list | tuple) else found
            rows = tf.cast(tf.reshape(found, weights.shape), tf.float32)
            total = tf.reduce_sum(rows * weights)
        return rows, tape.gradient(total, x)

    return lambda x, weights: tuple(v.numpy() for v in run(tf.constant(x), tf.constant(weights)))


def timed(run: Run, x: Any, weights: Any) -> tuple[Any, Any, float]:
    """The result, and the least seconds of some calls."""
    embedding, gradient = run(x, weights)
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run(x, weights)
        seconds.append(time.perf_counter() - start)
    return embedding, gradient, min(seconds)


def main() -> None:
    name, folder = sys.argv[1], Path(sys.argv[2])
    translator = {"onnx2torch": onnx2torch, "onnx2tf": onnx2tf}[name]
    for path in sorted(folder.glob("*.onnx")):
        given = np.load(path.with_suffix(".npz"))
        try:
            with tempfile.TemporaryDirectory() as apart:
                # onnx2tf writes over the file that it reads, so that nothing but a copy may be given to it.
                copy = shutil.copy(path, apart)
                run = translator(Path(copy), "embedding")
            embedding, gradient, seconds = timed(run, given["x"], given["weights"])
        except BaseException as error:  # noqa: BLE001 - onnx2tf ends with sys.exit
            lines = (str(error).strip() or type(error).__name__).splitlines()
            path.with_suffix(f".{name}.txt").write_text(lines[0][:200])
            continue
        np.savez(path.with_suffix(f".{name}.npz"), embedding=embedding, gradient=gradient, seconds=seconds)


if __name__ == "__main__":
    main()
