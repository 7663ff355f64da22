"""Whether `sixpixels manifest guess` finds how to read verifiers that were exported in other ways, and in what time.

    python benchmarks/guess.py --pairs ../shared/lfw --dlib ../shared/verifiers/dlib_resnet.onnx

Each verifier is one of two, with its input or output changed in the graph, so that the right manifest is known. A
choice is found if it won, and a tie if these pairs do not tell it from the winner.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from onnx import TensorProto

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests import exports
from tests.exports import Export
from toolkit import guess_manifest, load_pairs
from toolkit.files import bundled


@dataclass(frozen=True)
class Variant:
    """A changed verifier, and the choices that read it rightly."""

    name: str
    dlib: bool
    changes: tuple[Callable[[Export], None], ...]
    right: dict[str, str]


IMAGENET = exports.standardized([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
RGB, DLIB = {"channels": "RGB"}, {"alignment": "dlib"}
VARIANTS = (
    Variant("facenet-mini as it is", False, (), {"range": "(x - 127.5) / 128", **RGB, **DLIB}),
    Variant("other layout", False, (exports.other_layout,), {"shape": "NCHW 160 x 160", **RGB, **DLIB}),
    Variant("range 0 to 1, batch of 2", False, (exports.raw, exports.scaled(0, 1), exports.fixed_batch(2)),
            {"range": "0 to 1", **RGB, **DLIB}),
    Variant("bytes, batch of 1, embedding (1, D, 1, 1)", False,
            (exports.raw, exports.fixed_batch(1), exports.as_column, exports.taken_as(TensorProto.UINT8)),
            {"range": "0 to 255", **RGB, **DLIB}),
    Variant("dlib as it is", True, (), {"range": "0 to 255", "metric": "euclidean", **RGB, **DLIB}),
    Variant("BGR", True, (exports.bgr,), {"channels": "BGR", "range": "0 to 255", **DLIB}),
    Variant("range -1 to 1", True, (exports.scaled(-1, 1),), {"range": "-1 to 1", **RGB, **DLIB}),
    Variant("ImageNet's standardization", True, (IMAGENET,), {"range": "ImageNet's mean and deviation", **RGB, **DLIB}),
    Variant("three outputs", True, (exports.several_outputs,), {"output": "embedding", **RGB, **DLIB}),
    Variant("length 1", True, (exports.unit_length,), {"metric": "cosine", **RGB, **DLIB}),
    Variant("ArcFace's crop", True, (exports.aligned("arcface", 112),), {"alignment": "arcface", **RGB}),
    Variant(
        "all at once", True,
        (exports.aligned("arcface", 112), exports.bgr, exports.several_outputs, exports.unit_length,
         exports.scaled(-1, 1), exports.other_layout, exports.fixed_batch(1)),
        {"alignment": "arcface", "channels": "BGR", "range": "-1 to 1", "output": "embedding",
         "shape": "NHWC 112 x 112"},
    ),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--dlib", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=100)
    args = parser.parse_args()
    pairs, missed = load_pairs(args.pairs, limit=args.limit), 0
    with tempfile.TemporaryDirectory() as folder:
        for variant in VARIANTS:
            model, layout, side = (args.dlib, "NCHW", 150) if variant.dlib else (_mini(), "NHWC", 160)
            path = exports.export(model, layout, side, Path(folder) / "verifier.onnx", *variant.changes)
            start = time.perf_counter()
            found = guess_manifest(path, pairs, overwrite=True)
            seconds = time.perf_counter() - start
            choices = {choice.what: choice for choice in found.choices}
            told = []
            for what, right in variant.right.items():
                c = choices[what]
                won = c.chosen == right
                missed += not won and right not in c.ties
                others = f" (tie: {', '.join(c.ties)})" if c.ties else ""
                told.append(f"{what} {'found' if won else 'TIE' if right in c.ties else 'MISSED'}: {c.chosen}{others}")
            a = found.best[0].accuracy
            sys.stdout.write(f"{variant.name}: {seconds:.0f} s, {a.successes}/{a.trials}\n")
            sys.stdout.write("".join(f"    {line}\n" for line in told))
            sys.stdout.flush()
    sys.stdout.write(f"{missed} choices missed\n")
    sys.exit(bool(missed))


def _mini() -> Path:
    return bundled("models") / "facenet-mini" / "facenet-mini.onnx"


if __name__ == "__main__":
    main()
