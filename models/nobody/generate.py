"""Generate faces of people who do not exist, with pairs: what `sixpixels audit` takes when it is given no pairs.

The faces of LFW sets 1-6 give a morphable model (`morphable.py`). An identity is drawn from the differences between
people, its images from the differences between photographs of one person. Two verifiers then pull the codes, within
the model, until images of one identity are alike, identities differ from each other, and none resembles a
photograph that the model was learned from; what both verifiers still do not agree on is thrown away.

    python models/nobody/generate.py --lfw LFW --verifier dlib_resnet.onnx --work build/nobody
"""

from __future__ import annotations

import argparse
import csv
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(ROOT), str(ROOT / "models"), str(HERE)]

from morphable import SIDE, MorphableModel, draw, frontal, learn
from training_faces import TEMPLATE_150, lfw_photographs

from toolkit.faces.alignment import read_landmarks
from toolkit.faces.detection import PARTS
from toolkit.faces.pairs import read_people
from toolkit.pixels import to_8bit, to_unit
from toolkit.verifiers.manifest import Manifest, find_manifest
from toolkit.verifiers.runtime import RuntimeVerifier

IMAGES = 3
# How much photographs of one identity differ, as a share of how much those of a real person do.
STYLE = 0.45
# Codes may not leave the model's own spread by much: beyond it are no faces.
LARGEST_DEVIATION = 1.35


@dataclass(frozen=True)
class Wish:
    """Distances that a verifier should give, as shares of its threshold."""

    same: float
    different: float
    unlike_training: float


WISHES = {"dlib-resnet": Wish(0.75, 1.25, 1.10), "facenet-mini": Wish(0.80, 1.25, 1.08)}


def training_model(lfw: Path, work: Path) -> tuple[MorphableModel, np.ndarray]:
    """The model, and every aligned training face (N, SIDE, SIDE, 3) uint8, RGB."""
    photographs = lfw_photographs(lfw)
    faces = np.stack([photographs.crop(i, SIDE)[..., ::-1] for i in range(len(photographs))])
    stored = work / "model.npz"
    names = list(MorphableModel.__dataclass_fields__)
    if stored.exists():
        with np.load(stored) as file:
            return MorphableModel(**{name: file[name] for name in names}), faces
    people = {name for listed in read_people(lfw / "people.txt")[:6] for name in listed}
    points = [
        p for n, p in read_landmarks(lfw / "landmarks.csv").items() if p is not None and n.split("/")[0] in people
    ]
    if len(points) != len(faces):
        sys.exit("a photograph could not be read; its landmarks would belong to another")
    kept = np.array([frontal(p) for p in points])
    model = learn(faces[kept], np.array(photographs.people)[kept])
    np.savez(stored, **{name: getattr(model, name) for name in names})
    print(f"learned from {kept.sum()} frontal photographs", flush=True)
    return model, faces


def embedded(manifest: Manifest, faces: np.ndarray) -> np.ndarray:
    """Embeddings of aligned faces (N, SIDE, SIDE, 3), uint8, by a verifier that crops at its own side."""
    verifier, side = RuntimeVerifier(manifest), manifest.input.width
    sized = faces if side == SIDE else np.stack([cv2.resize(f, (side, side)) for f in faces])
    return np.concatenate([verifier.embed(to_unit(sized[i : i + 64])) for i in range(0, len(sized), 64)])


def squared_distances(a, b):
    """(N, M) of (N, D) and (M, D), TensorFlow or NumPy alike."""
    import tensorflow as tf

    return tf.reduce_sum(a**2, 1)[:, None] + tf.reduce_sum(b**2, 1)[None] - 2 * tf.matmul(a, b, transpose_b=True)


def judge(manifest: Manifest, training: np.ndarray, person: np.ndarray):
    """How far a set of images is from this verifier's `WISHES`, differentiable."""
    import tensorflow as tf

    from toolkit.verifiers.checkpoints import load_network
    from toolkit.verifiers.onnx_graph import load_onnx
    from toolkit.verifiers.tensorflow import tensorflow_model_input

    if manifest.checkpoint is not None:
        embed = load_network(manifest.checkpoint, manifest.output.normalize)
    else:
        embed = load_onnx(manifest.model)
    wish, spec = WISHES[manifest.name], manifest.input
    limit = manifest.decision.threshold
    same = person[:, None] == person[None]
    itself = np.eye(len(person), dtype=bool)

    @tf.function
    def unmet(images):
        e = embed(tensorflow_model_input(tf.image.resize(images, (spec.height, spec.width)), spec))
        among, to_training = squared_distances(e, e), squared_distances(e, tf.constant(training))
        if manifest.decision.metric == "euclidean":
            among, to_training = (tf.sqrt(tf.maximum(d, 1e-9)) for d in (among, to_training))
        apart = tf.nn.relu(among / limit - wish.same) ** 2 * (same & ~itself)
        alike = tf.nn.relu(wish.different - among / limit) ** 2 * ~same
        known = tf.nn.relu(wish.unlike_training - to_training / limit) ** 2
        parts = [tf.reduce_sum(part) / len(person) for part in (apart, alike, known)]
        return tf.stack(parts), tf.reduce_min(to_training, 1)

    return unmet


def optimized(model: MorphableModel, judges: list, identities: int, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Images (identities * IMAGES, SIDE, SIDE, 3), uint8."""
    import keras
    import tensorflow as tf

    who = tf.Variable(rng.standard_normal((identities, model.size)).astype(np.float32))
    how = tf.Variable(rng.standard_normal((identities * IMAGES, model.size)).astype(np.float32))
    to_identity, to_style = (tf.constant(m.astype(np.float32)) for m in (model.identity, STYLE * model.style))
    optimizer = keras.optimizers.Adam(0.06, beta_2=0.95)
    # Thousands of training faces pull at first in all directions; in the end only the nearest few are left.
    training_weight = 20.0
    largest = LARGEST_DEVIATION * np.sqrt(model.size)

    @tf.function
    def images():
        return draw(model, tf.repeat(tf.matmul(who, to_identity), IMAGES, 0) + tf.matmul(how, to_style))

    nearest: list[np.ndarray] = []
    for step in range(steps):
        nearest = []
        with tf.GradientTape() as tape:
            drawn = images()
            # Every other time with noise: what survives only at exact pixels is no likeness.
            seen = drawn + tf.random.stateless_normal(drawn.shape, (step, 0), stddev=0.01 * (step % 2))
            unmet = tf.constant(0.0)
            told = []
            for name, judged in judges:
                parts, near = judged(seen)
                unmet += tf.reduce_sum(parts * [1.0, 1.0, 1.0 + training_weight * step / steps])
                nearest.append(near.numpy())
                told.append(f"{name} same {parts[0]:.3f} different {parts[1]:.3f} training {parts[2]:.3f}")
            loss = unmet + 0.02 * (tf.reduce_mean(who**2) + tf.reduce_mean(how**2))
        optimizer.learning_rate.assign(0.06 * (1 - step / steps) + 0.005)
        gradients = tape.gradient(loss, [who, how])
        optimizer.apply_gradients(zip(gradients, [who, how], strict=True))
        for code in (who, how):
            code.assign(tf.clip_by_norm(tf.clip_by_value(code, -3.0, 3.0), largest, axes=[1]))
        if step % 5 == 0 or step == steps - 1:
            near = "  ".join(f"{n.min():.3f}/{np.median(n):.3f}" for n in nearest)
            print(f"step {step}: {'; '.join(told)}; nearest {near}", flush=True)
    return to_8bit(images().numpy())


def accepted(images: np.ndarray, manifests: list[Manifest], known: list[np.ndarray]) -> list[int]:
    """Identities whose images, as they will be stored, satisfy the verifiers."""
    person = np.repeat(np.arange(len(images) // IMAGES), IMAGES)
    keep = np.ones(person.max() + 1, bool)
    for manifest, others in zip(manifests, known, strict=True):
        e, limit = embedded(manifest, images), manifest.decision.threshold
        among, to_training = (np.asarray(squared_distances(e, other)) for other in (e, others))
        if manifest.decision.metric == "euclidean":
            among, to_training = (np.sqrt(np.maximum(d, 0)) for d in (among, to_training))
        wrong = (among >= limit) & (person[:, None] == person[None])
        for identity in range(len(keep)):
            mine = person == identity
            keep[identity] &= not wrong[mine].any()
            keep[identity] &= bool(to_training[mine].min() >= limit)
        unlike = to_training.min(1).reshape(-1, IMAGES).min(1)
        print(f"{manifest.name}: nearest training face {np.round(np.quantile(unlike, [0, 0.1, 0.5, 1]), 3)}")
        # Of two identities that are taken for each other, the later goes.
        for a, b in np.argwhere((among < limit) & (person[:, None] < person[None])):
            if keep[person[a]] and keep[person[b]]:
                keep[person[b]] = False
    return list(np.flatnonzero(keep))


def stored_jpeg(image: np.ndarray) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), options)[1].tobytes()


def as_decoded(images: np.ndarray) -> np.ndarray:
    """What is left of images (N, SIDE, SIDE, 3), uint8, once they are stored."""
    return np.stack([cv2.imdecode(np.frombuffer(stored_jpeg(i), np.uint8), 1)[..., ::-1] for i in images])


def write(images: np.ndarray, folder: Path, pairs: int, rng: np.random.Generator) -> None:
    """Write faces (identities, IMAGES, ...) in the LFW layout, with `pairs` genuine and as many impostor pairs."""
    names = [f"nobody-{i:02d}" for i in range(1, len(images) + 1)]
    rows = []
    for name, faces in zip(names, images, strict=True):
        (folder / "images" / name).mkdir(parents=True, exist_ok=True)
        for number, face in enumerate(faces, 1):
            relative = f"{name}/{name}_{number:04d}.jpg"
            (folder / "images" / relative).write_bytes(stored_jpeg(face))
            rows.append([relative, 1.0, 0, 0, SIDE, SIDE, *np.round(TEMPLATE_150 * SIDE / 150, 2).ravel()])
    with (folder / "landmarks.csv").open("w", newline="") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(["image", "confidence", "x", "y", "w", "h", *(f"{p}_{axis}" for p in PARTS for axis in "xy")])
        table.writerows(rows)
    every = [(n, a, b) for n in names for a, b in ((1, 2), (2, 3), (3, 1))]
    genuine = [every[i] for i in sorted(rng.choice(len(every), pairs, replace=False))]
    impostor = set()
    while len(impostor) < pairs:
        a, b = rng.choice(len(names), 2, replace=False)
        impostor.add((names[a], int(rng.integers(1, IMAGES + 1)), names[b], int(rng.integers(1, IMAGES + 1))))
    lines = [str(pairs), *("\t".join(map(str, p)) for p in (*genuine, *sorted(impostor)))]
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--verifier", type=Path, required=True, help="dlib_resnet.onnx")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--identities", type=int, default=22, help="in each round")
    parser.add_argument("--keep", type=int, default=36)
    parser.add_argument("--pairs", type=int, default=80, help="genuine, and as many impostor")
    parser.add_argument("--steps", type=int, default=90)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    rng = np.random.default_rng(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    model, faces = training_model(args.lfw, args.work)
    manifests = [find_manifest(str(args.verifier)), find_manifest("facenet-mini")]
    stored = args.work / "training.npz"
    if stored.exists():
        with np.load(stored) as file:
            training = [file[m.name] for m in manifests]
    else:
        training = [embedded(m, faces) for m in manifests]
        np.savez(stored, **{m.name: e for m, e in zip(manifests, training, strict=True)})
    people: list[np.ndarray] = []
    found = args.work / "accepted.npy"
    if found.exists():
        people = list(np.load(found))
    person = np.repeat(np.arange(args.identities), IMAGES)
    while len(people) < args.keep:
        # Those of earlier rounds are somebody to differ from, like the training faces.
        earlier = as_decoded(np.reshape(people, (-1, SIDE, SIDE, 3))) if people else faces[:0]
        known = [np.concatenate([e, embedded(m, earlier)]) for m, e in zip(manifests, training, strict=True)]
        judges = [(m.name, judge(m, k, person)) for m, k in zip(manifests, known, strict=True)]
        images = optimized(model, judges, args.identities, args.steps, np.random.default_rng(args.seed + len(people)))
        keep = accepted(as_decoded(images), manifests, known)
        people += list(images.reshape(-1, IMAGES, SIDE, SIDE, 3)[keep])
        np.save(found, people)
        print(f"{len(keep)} of {args.identities} identities accepted, {len(people)} in all", flush=True)
    write(np.array(people[: args.keep]), HERE / "faces", args.pairs, rng)


if __name__ == "__main__":
    main()
