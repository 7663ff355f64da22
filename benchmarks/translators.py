"""Our translation of ONNX files beside onnx2torch and onnx2tf: what each translates, how exactly, and how fast.

    python benchmarks/translators.py --dlib ../shared/verifiers/dlib_resnet.onnx --torch A/bin/python --tf B/bin/python

Each file is one of two verifiers, with its input or output changed in the graph, as it is and in the normal form that
gradients take. The others run in environments of their own (`pip install onnx2torch torchvision`, `pip install
onnx2tf`); one that is not given is left out. All run on one thread, on 8 images at once, and compute the embedding and
the gradient of a weighted sum of it. An embedding is right if it differs from ONNX Runtime's by at most 1e-3 of its
length. Gradients are compared with ours on the normal form.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import onnx
from onnx import TensorProto

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from translators_worker import timed

from tests import exports
from tests.exports import Export
from toolkit.defenses.base import with_opset
from toolkit.errors import SixpixelsError
from toolkit.files import bundled
from toolkit.quiet import import_tensorflow
from toolkit.verifiers.manifest import Decision, Input, Manifest, Output
from toolkit.verifiers.normalize import Wanted, normalized
from toolkit.verifiers.onnx_file import parse_onnx
from toolkit.verifiers.onnx_graph import translate
from toolkit.verifiers.runtime import RuntimeVerifier

COUNT, TOLERANCE = 8, 1e-3
Change = Callable[[Export], None]
VARIANTS: dict[str, tuple[bool, tuple[Change, ...]]] = {
    "facenet-mini": (False, ()),
    "facenet-mini, channels first": (False, (exports.other_layout,)),
    "facenet-mini, batch of 1": (False, (exports.fixed_batch(1),)),
    "dlib": (True, ()),
    "dlib, channels last": (True, (exports.other_layout,)),
    "dlib, batch of 1": (True, (exports.fixed_batch(1),)),
    "dlib, three outputs": (True, (exports.several_outputs,)),
    "dlib, bytes": (True, (exports.taken_as(TensorProto.UINT8),)),
    "dlib, ArcFace's crop": (True, (exports.aligned("arcface", 112),)),
    "dlib, nodes reversed": (True, (lambda e: reverse(e.model.graph),)),
}


def reverse(graph: onnx.GraphProto) -> None:
    nodes = list(graph.node)[::-1]
    del graph.node[:]
    graph.node.extend(nodes)


def written(folder: Path, dlib: Path) -> Iterator[tuple[str, str, Manifest]]:
    """Write each variant twice, with its input, and yield its name, its form and its manifest."""
    for i, (name, (is_dlib, changes)) in enumerate(VARIANTS.items()):
        source, layout, side = (dlib, "NCHW", 150) if is_dlib else (_mini(), "NHWC", 160)
        path = folder / f"{i:02}-as-it-is.onnx"
        # The others read operators of opset 17. Only the change for several outputs needs a newer one.
        model = onnx.load(source)
        model = with_opset(model, 18, str(source)) if exports.several_outputs in changes else model
        e = Export(model, layout, side, side)
        for change in changes:
            change(e)
        onnx.save(e.model, path)
        size = e.model.graph.output[-1].type.tensor_type.shape.dim[1].dim_value
        spec = Input("input", e.height, e.width, e.layout, "RGB", 0, 255, "fixed", (0, 0, 0), (1, 1, 1))  # type: ignore[arg-type]
        manifest = Manifest(
            path, name, path, None, "", "", spec, Output("embedding", size, normalize=False),
            Decision("euclidean", 1, 4), None, None,
        )  # fmt: skip
        _write_input(manifest, path)
        yield name, "as it is", manifest
        form = normalized(path.read_bytes(), manifest, Wanted(("embedding",), folded=True, any_batch=True))
        normal = folder / f"{i:02}-normal.onnx"
        normal.write_bytes(form)
        _write_input(manifest, normal)
        yield name, "normal", Manifest(**{**vars(manifest), "model": normal})


def _mini() -> Path:
    return bundled("models") / "facenet-mini" / "facenet-mini.onnx"


def _write_input(manifest: Manifest, path: Path) -> None:
    spec, rng = manifest.input, np.random.default_rng(0)
    crops = rng.random((COUNT, spec.height, spec.width, 3), np.float32)
    whole = np.rint(crops * 255).astype(np.float32)
    embedding = RuntimeVerifier(Manifest(**{**vars(manifest), "model": path})).embed(whole / np.float32(255))
    x = whole.transpose(0, 3, 1, 2) if spec.layout == "NCHW" else whole
    weights = rng.normal(size=embedding.shape).astype(np.float32)
    np.savez(path.with_suffix(".npz"), x=np.ascontiguousarray(x), weights=weights, embedding=embedding)


def ours(manifest: Manifest) -> Any:
    """Our translation, compiled as an audit compiles it."""
    tf = import_tensorflow()
    network = translate(parse_onnx(manifest.model.read_bytes(), manifest.model), manifest.model, "embedding")

    @tf.function
    def run(x: Any, weights: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            rows = tf.reshape(network(x), weights.shape)
            total = tf.reduce_sum(rows * weights)
        return rows, tape.gradient(total, x)

    return lambda x, weights: tuple(v.numpy() for v in run(tf.constant(x), tf.constant(weights)))


def _in_our_house(manifest: Manifest) -> None:
    given = np.load(manifest.model.with_suffix(".npz"))
    try:
        embedding, gradient, seconds = timed(ours(manifest), given["x"], given["weights"])
    except SixpixelsError as error:
        manifest.model.with_suffix(".ours.txt").write_text(str(error))
        return
    np.savez(manifest.model.with_suffix(".ours.npz"), embedding=embedding, gradient=gradient, seconds=seconds)


def cell(model: Path, translator: str, truth: Path) -> str:
    """One cell: milliseconds for each image, and the differences of the embedding and of the gradient."""
    found = model.with_suffix(f".{translator}.npz")
    if not found.exists():
        why = model.with_suffix(f".{translator}.txt")
        return f"fails: {why.read_text()[:60]}" if why.exists() else "not run"
    result, given = np.load(found), np.load(model.with_suffix(".npz"))
    right = np.load(truth) if truth.exists() else result
    apart = _relative(result["embedding"], given["embedding"])
    if apart > TOLERANCE:
        return f"wrong: differs by {apart:.0e}"
    each = 1000 * float(result["seconds"]) / COUNT
    return f"{each:.1f} ms, {apart:.0e}, {_relative(result['gradient'], right['gradient']):.0e}"


def _relative(value: Any, right: Any) -> float:
    return float(np.linalg.norm(value - right) / np.linalg.norm(right))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dlib", type=Path, required=True)
    parser.add_argument("--torch", default="", help="a Python with onnx2torch and torchvision")
    parser.add_argument("--tf", default="", help="a Python with onnx2tf")
    args = parser.parse_args()
    others = {"onnx2torch": args.torch, "onnx2tf": args.tf}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = list(written(folder, args.dlib))
        for _, _, manifest in found:
            _in_our_house(manifest)
        worker = Path(__file__).with_name("translators_worker.py")
        for translator, python in others.items():
            if python:
                with (folder / f"{translator}.log").open("w") as log:
                    subprocess.run(  # noqa: S603 - a Python that the user names
                        [python, worker, translator, folder], check=False, stdout=log, stderr=log
                    )
        lines = ["| file | form | ours | onnx2torch | onnx2tf |", "| --- | --- | --- | --- | --- |"]
        for title, form, manifest in found:
            truth = folder / f"{manifest.model.stem[:2]}-normal.ours.npz"
            cells = [cell(manifest.model, translator, truth) for translator in ("ours", *others)]
            lines.append(f"| {' | '.join([title, form, *cells])} |")
        sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
