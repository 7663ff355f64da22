"""The same audit by a plain script with Foolbox and OpenCV, as a user would otherwise write it, beside ours.

python benchmarks/peer.py facenet-mini --pairs LFW --limit 20

The audit: the attack FMN on the bare verifier and on the verifier behind `mean3`, replayed through both as they are
deployed, in 8 bits. Each side is a process of its own, timed from the start of Python to the last line, and both use
the same crops, steps and files. The script has neither sanity checks, intervals, a report nor a run to continue.
Printed are the seconds, and the successes and the median L2 norms of the pairs that both sides solved.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from loading import crops_of

from toolkit.audit.results.outcomes import read_run
from toolkit.threads import cores
from toolkit.verifiers.manifest import find_manifest

GOALS = {"dodging": True, "impersonation": False}
PROFILES = ("none", "mean3")
_SIDE = 3


def blurred(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """OpenCV's mean filter."""
    return np.stack([cv2.blur(image, (_SIDE, _SIDE)) for image in images])


def plain_audit(verifier: str, pairs: Path, folds: str, limit: int, steps: int) -> dict[str, list[float]]:
    """What a user would write: the norm of each pair's probe by scenario and goal, infinite without a success."""
    import foolbox
    import onnxruntime
    import tensorflow as tf

    from toolkit.verifiers.differentiable import differentiable

    manifest = find_manifest(verifier)
    spec, limit_of = manifest.input, manifest.decision.threshold
    crops, genuine = crops_of(manifest, pairs, folds, limit)
    session = onnxruntime.InferenceSession(str(manifest.model), providers=["CPUExecutionProvider"])
    network = differentiable(manifest)

    def scaled(images: Any) -> Any:
        return (spec.low + images * (spec.high - spec.low) - np.asarray(spec.mean, np.float32)) / np.asarray(
            spec.std, np.float32
        )

    def embed(images: NDArray[np.float32]) -> NDArray[np.float32]:
        found = session.run([manifest.output.name], {spec.name: scaled(images).astype(np.float32)})[0]
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))

    def mean(images: Any) -> Any:
        edge = [[0, 0], [1, 1], [1, 1], [0, 0]]
        kernel = tf.eye(3, batch_shape=(_SIDE, _SIDE)) / _SIDE**2
        return tf.nn.conv2d(tf.pad(images, edge, "REFLECT"), kernel, 1, "VALID")

    filters: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
        "none": (lambda x: x, lambda x: x),
        "mean3": (blurred, mean),
    }
    found: dict[str, list[float]] = {}
    for goal, kind in GOALS.items():
        probes, references = (
            np.asarray(crops.images[side]).astype(np.float32) / 255 for side in crops.index[genuine == kind].T
        )
        for known in PROFILES:
            enrolled = embed(filters[known][0](references))

            def logits(x: Any, enrolled: Any = enrolled, differentiable_filter: Any = filters[known][1]) -> Any:
                e = tf.math.l2_normalize(network(scaled(differentiable_filter(x))), axis=1)
                margin = limit_of - tf.reduce_sum(tf.square(e - enrolled), axis=1)
                return tf.stack([margin, -margin], axis=1)

            model = foolbox.TensorFlowModel(tf.function(logits), bounds=(0, 1), device="/CPU:0")
            labels = tf.constant(np.full(len(probes), int(not kind)))
            attack = foolbox.attacks.L2FMNAttack(steps=steps)
            crafted = attack.run(model, tf.constant(probes), labels).numpy()
            eight_bits = np.round(crafted * 255).astype(np.uint8).astype(np.float32) / 255
            for deployed in PROFILES:
                if known not in ("none", deployed):
                    continue
                through = filters[deployed][0]
                d = np.sum(np.square(embed(through(eight_bits)) - embed(through(references))), axis=1)
                norms = np.sqrt(np.square(eight_bits - probes).sum(axis=(1, 2, 3)))
                fell = (d < limit_of) != kind
                found[f"{known} to {deployed}, {goal}"] = np.where(fell, norms, np.inf).tolist()
    return found


def our_norms(run: Path, genuine: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """The same of a finished audit."""
    return {
        f"{o.known} to {o.profile}, {goal}": np.where(o.success, o.l2, np.inf)[genuine == kind]
        for o in read_run(run).outcomes
        for goal, kind in GOALS.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verifier")
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--folds", default="7,8")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--our-steps", type=int, help="the steps of our attack, if other than those of the script")
    parser.add_argument("--plain", type=Path, help="only run the plain script, and write what it found")
    args = parser.parse_args()
    if args.plain:
        found = plain_audit(args.verifier, args.pairs, args.folds, args.limit, args.steps)
        args.plain.write_text(json.dumps(found))
        return
    shared = ["--pairs", str(args.pairs), "--folds", args.folds, "--limit", str(args.limit)]
    with tempfile.TemporaryDirectory() as folder:
        run, plain = Path(folder) / "run", Path(folder) / "plain.json"
        ours = [
            "audit",
            args.verifier,
            *shared,
            "--attacks",
            "fmn",
            "--set",
            f"fmn.steps={args.our_steps or args.steps}",
        ]
        ours += ["--profiles", ",".join(PROFILES), "--run", str(run)]
        theirs = [args.verifier, *shared, "--steps", str(args.steps), "--plain", str(plain)]
        seconds = []
        # The script has the threads that TensorFlow takes by itself.
        own = {"TF_NUM_INTRAOP_THREADS": str(cores())}
        for command, more in (([str(ROOT / "cli.py"), *ours], {}), ([str(Path(__file__)), *theirs], own)):
            start, environment = time.perf_counter(), os.environ | more
            subprocess.run(  # noqa: S603 - the arguments of this command
                [sys.executable, "-P", *command], env=environment, check=True, stdout=subprocess.DEVNULL
            )
            seconds.append(time.perf_counter() - start)
        _, genuine = crops_of(find_manifest(args.verifier), args.pairs, args.folds, args.limit)
        mine, other = our_norms(run, genuine), json.loads(plain.read_text())
    print(
        "| scenario | pairs | ours fell | Foolbox fell | median L2, ours | median L2, Foolbox |\n" + "| --- " * 6 + "|"
    )
    for name, norms in mine.items():
        against = np.array(other[name])
        both = np.isfinite(norms) & np.isfinite(against)
        medians = [f"{np.median(side[both]):.3f}" if both.any() else "-" for side in (norms, against)]
        fell = [int(np.isfinite(side).sum()) for side in (norms, against)]
        print(f"| {name} | {len(norms)} | {fell[0]} | {fell[1]} | {medians[0]} | {medians[1]} |")
    print(f"\nours {seconds[0]:.1f} s, plain script {seconds[1]:.1f} s, ratio {seconds[1] / seconds[0]:.2f}")


if __name__ == "__main__":
    main()
