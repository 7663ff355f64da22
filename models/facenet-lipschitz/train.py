"""Train facenet-lipschitz: a verifier with a certificate for each decision, without noise and without a vote.

Its raw embedding x never moves further than the crop does (`lipschitz_network.py`). So the direction of x turns by at
most asin(r / |x|) when the crop changes by r, and a decision at the angle a between probe and reference, with the
threshold's angle t, holds within r = |x| sin|a - t|. The loss makes this signed radius large: on genuine pairs, two
photographs of one person of LFW sets 1-5, and on impostor pairs of the batch. Beside it, a teacher gives the direction
(as in facenet-mini), which needs no names.

    python models/facenet-lipschitz/train.py --lfw LFW --faces FACES --teacher dlib_resnet.onnx \
        --work build/facenet-lipschitz --minutes 60
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]

from lipschitz_network import AVERAGED, SIDE, lipschitz_network
from training import Training, ahead, distillation, options
from training_faces import jitter, teacher_embeddings, training_photographs, watched_pairs

from toolkit.faces.pairs import read_people
from toolkit.statistics.verification import best_threshold

SEEN = SIDE // AVERAGED
# The unit of the radii in the loss: what is far beyond it, or far from it on the wrong side, has no say.
SCALE = 0.3
# The weight of the teacher beside the radii.
TAUGHT = 0.4
# Impostor pairs that the teacher finds more alike than this cosine may be one person, and are left out.
ALIKE = 0.5
# LFW set whose people are left out of the training, so that the threshold can be chosen on them.
HELD_OUT = 6


def averaged(crops: np.ndarray) -> np.ndarray:
    """What the network sees of crops (N, side, side, 3)."""
    return np.stack([cv2.resize(crop, (SEEN, SEEN), interpolation=cv2.INTER_AREA) for crop in crops])


def main() -> None:
    args = options(__doc__, minutes=60, rate=2e-3, batch=144, teacher=True).parse_args()

    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    photographs = training_photographs(args.lfw, args.faces)
    wanted = teacher_embeddings(args.teacher, photographs, args.work / "teacher.npy").astype(np.float32)
    held_out = set(read_people(args.lfw / "people.txt")[HELD_OUT - 1])
    usable = np.array([i for i, person in enumerate(photographs.people) if person not in held_out])
    people: dict[str, list[int]] = {}
    for i in usable:
        if photographs.people[i]:
            people.setdefault(photographs.people[i], []).append(int(i))
    several = [rows for rows in people.values() if len(rows) > 1]
    watched, genuine = watched_pairs(args.lfw, SIDE)
    seen = averaged(watched.images)
    print(f"{len(usable)} of them used, {len(several)} people with several photographs", flush=True)

    model, average = lipschitz_network(), lipschitz_network()
    training = Training(
        args.work, args.minutes, model, average,
        keras.optimizers.Adam(args.rate, clipnorm=5.0), args.rate,
        warming=100, kept={"faces": len(usable), "angle": 1.25},
    )  # fmt: skip
    angle = tf.Variable(training.kept["angle"], dtype=tf.float32)

    @tf.function
    def train_step(crops8: tf.Tensor, target: tf.Tensor, person: tf.Tensor) -> tuple[tf.Tensor, ...]:
        with tf.GradientTape() as tape:
            x = model(tf.cast(crops8, tf.float32) / 255.0, training=True)
            length = tf.norm(x + 1e-9, axis=1, keepdims=True)
            direction = x / length
            cosines = tf.matmul(direction, direction, transpose_b=True)
            beyond = tf.acos(tf.clip_by_value(cosines, -0.9999, 0.9999)) - angle
            radius = length * tf.sin(tf.clip_by_value(beyond, -np.pi / 2, np.pi / 2)) / SCALE
            taught = tf.matmul(target, target, transpose_b=True)
            one = tf.cast(person[:, None] == person, tf.float32)
            others = (1.0 - one) * tf.cast(taught < ALIKE, tf.float32)
            one -= tf.eye(tf.shape(x)[0])
            missed = tf.reduce_sum(one * tf.nn.softplus(radius)) / tf.reduce_sum(one)
            admitted = tf.reduce_sum(others * tf.nn.softplus(-radius)) / tf.reduce_sum(others)
            taught_loss, cosine, relation = distillation(direction, target)
            loss = missed + admitted + TAUGHT * taught_loss
        *gradients, turned = tape.gradient(loss, [*model.trainable_variables, angle])
        training.apply(gradients)
        angle.assign_sub(0.01 * tf.clip_by_value(turned, -1.0, 1.0))
        return missed, admitted, cosine, relation, tf.reduce_mean(length)

    @tf.function
    def embed(crops8: tf.Tensor) -> tf.Tensor:
        return average(tf.cast(crops8, tf.float32) / 255.0, training=False)

    def report(means: np.ndarray) -> str:
        training.kept["angle"] = float(angle)
        x = np.concatenate([embed(seen[i : i + 200]).numpy() for i in range(0, len(seen), 200)])
        lengths = np.linalg.norm(x, axis=1)
        unit = x / lengths[:, None]
        angles = np.arccos(np.clip(np.sum(unit[watched.index[:, 0]] * unit[watched.index[:, 1]], axis=1), -1, 1))
        threshold = best_threshold(angles, genuine)
        right = (angles < threshold) == genuine
        radii = lengths[watched.index[:, 0]] * np.sin(np.minimum(np.abs(angles - threshold), np.pi / 2))
        shares = " ".join(f"{r}: {np.mean(right & (radii >= r)):.3f}" for r in (0.1, 0.25, 0.5, 1.0))
        return (
            f"missed {means[0]:.3f} admitted {means[1]:.3f} cosine {means[2]:.4f} relation {means[3]:.5f} "
            f"length {means[4]:.2f}; held out: best accuracy {np.mean(right):.4f} at {threshold:.3f} rad, "
            f"certified {shares}"
        )

    rng = np.random.default_rng(args.seed + training.step)

    def views() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Two photographs of some people, and half as many others."""
        pairs = args.batch // 3
        chosen = rng.choice(len(several), pairs, replace=False)
        rows = [int(i) for k in chosen for i in rng.choice(several[k], 2, replace=False)]
        rows += [int(i) for i in rng.choice(usable, args.batch - 2 * pairs)]
        crops = [photographs.crop(i, 2 * SEEN, jitter(rng, 3, 0.03, 0.015)) for i in rows]
        person = np.concatenate([np.repeat(chosen, 2), -1 - np.arange(args.batch - 2 * pairs)])
        return averaged(np.stack(crops))[..., ::-1], wanted[rows], person.astype(np.int32)

    with ahead(views) as ready:
        training.run(lambda: train_step(*ready.get()), report)


if __name__ == "__main__":
    main()
