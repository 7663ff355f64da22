"""Train facenet-mini: Inception-ResNet-v1 at reduced width, distilled from an ONNX verifier.

The student learns the teacher's embedding *function*: both see the same randomly placed, mirrored and
blended crop ("a good teacher is patient and consistent", Beyer et al. 2021, arXiv:2106.05237), which makes
16,000 faces without names as useful as the named ones.

    python models/facenet-mini/train.py --lfw LFW --faces FACES --teacher dlib_resnet.onnx \
        --work build/facenet-mini --minutes 120
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]

from shipping import EMBEDDING_SIZE, WIDTH
from training import Training, ahead, distillation, options
from training_faces import TEMPLATE_150, Photographs, jitter, training_photographs

from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.statistics.verification import best_threshold
from toolkit.verifiers.scores import distances, normalized

# (share of the time, side of the training crop): small crops first, because they cost half as much.
STAGES = ((0.5, 112), (1.0, 160))


class Views:
    """Batches of (crops, teacher embeddings) from random views of the faces."""

    def __init__(self, photographs: Photographs, teacher: Path, mean: np.ndarray | None, batch: int, seed: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        self.session = onnxruntime.InferenceSession(str(teacher), options, providers=["CPUExecutionProvider"])
        self.photographs, self.batch = photographs, batch
        self.rng = np.random.default_rng(seed)
        self.side = STAGES[0][1]
        self.mean = self.teacher_mean() if mean is None else mean

    def teacher_embeddings(self, crops_150: list[np.ndarray]) -> np.ndarray:
        batch = np.stack(crops_150)[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
        return self.session.run(None, {"input": batch})[0]

    def teacher_mean(self, count: int = 4000) -> np.ndarray:
        chosen = self.rng.choice(len(self.photographs), min(count, len(self.photographs)), replace=False)
        parts = []
        for at in range(0, len(chosen), 64):
            crops = [self.photographs.crop(i, 150) for i in chosen[at : at + 64]]
            parts.append(self.teacher_embeddings(crops))
        return np.concatenate(parts).mean(axis=0)

    def view(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """One view at the student's side and at the teacher's, BGR uint8."""
        rng, crop, count = self.rng, self.photographs.crop, len(self.photographs)
        index, placed = int(rng.integers(count)), jitter(rng)
        student, teacher = crop(index, side, placed), crop(index, 150, placed)
        if rng.random() < 0.5:  # a blend of two aligned faces is a face that nobody has
            other, placed, share = int(rng.integers(count)), jitter(rng), rng.uniform(0.5, 0.9)
            student = cv2.addWeighted(student, share, crop(other, side, placed), 1 - share, 0)
            teacher = cv2.addWeighted(teacher, share, crop(other, 150, placed), 1 - share, 0)
        return student, teacher

    def photometric(self, crops: np.ndarray) -> np.ndarray:
        """Contrast, brightness and color cast of each crop, and a hidden rectangle in some; the teacher sees none."""
        rng, n = self.rng, len(crops)
        x = crops.astype(np.float32)
        gain = np.exp(rng.normal(0, 0.12, (n, 1, 1, 1)) + rng.normal(0, 0.05, (n, 1, 1, 3))).astype(np.float32)
        x = (x - 127.5) * gain + 127.5 + rng.normal(0, 12, (n, 1, 1, 1)).astype(np.float32)
        for i in np.flatnonzero(rng.random(n) < 0.15):
            x[i] = x[i].mean(axis=-1, keepdims=True)
        for i in np.flatnonzero(rng.random(n) < 0.2):
            h, w = (rng.uniform(0.1, 0.35, 2) * x.shape[1]).astype(int)
            top, left = rng.integers(x.shape[1] - h), rng.integers(x.shape[2] - w)
            x[i, top : top + h, left : left + w] = rng.uniform(0, 255)
        return standardized(np.clip(x, 0, 255))

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Endless batches: standardized crops at the side that is set now, and what the teacher says of them."""
        while True:
            students, targets, side = [], [], self.side
            for _ in range(16):
                pairs = [self.view(side) for _ in range(self.batch)]
                students.append(np.stack([s for s, _ in pairs])[..., ::-1])
                targets.append(self.teacher_embeddings([t for _, t in pairs]) - self.mean)
            student, target = np.concatenate(students), np.concatenate(targets)
            for _ in range(2):  # each view twice: the teacher costs a third of a training step
                order = self.rng.permutation(len(student))
                for at in range(0, len(order), self.batch):
                    chosen = order[at : at + self.batch]
                    yield self.photometric(student[chosen]), target[chosen]


def lfw_test_crops(lfw: Path, side: int) -> CropSet:
    """The pairs of sets 7 and 8, which the training only looks at."""
    template = tuple(map(tuple, TEMPLATE_150 * side / 150))
    return crop_pairs(load_pairs(lfw, folds=(7, 8)), side, side, template)


def side_at(progress: float) -> int:
    """Side of the training crops at a share of the time."""
    return next((side for share, side in STAGES if progress < share), STAGES[-1][1])


def standardized(crops: np.ndarray) -> np.ndarray:
    return (crops.astype(np.float32) - 127.5) / 128.0


def best_accuracy(embeddings: np.ndarray, crops: CropSet) -> float:
    """Accuracy at the threshold that fits these pairs best: too optimistic to quote, good enough to watch."""
    e = normalized(embeddings)
    d = distances("squared-euclidean", e[crops.index[:, 0]], e[crops.index[:, 1]])
    genuine = np.array([pair.genuine for pair in crops.pairs])
    return float(np.mean((d < best_threshold(d, genuine)) == genuine))


def main() -> None:
    args = options(__doc__, minutes=120, rate=2e-3, batch=64, teacher=True).parse_args()

    import keras
    import tensorflow as tf

    from toolkit.networks.inception_resnet_v1 import inception_resnet_v1

    keras.utils.set_random_seed(args.seed)
    photographs = training_photographs(args.lfw, args.faces)

    model = inception_resnet_v1(EMBEDDING_SIZE, WIDTH, input_side=None)
    average = inception_resnet_v1(EMBEDDING_SIZE, WIDTH, input_side=None)
    optimizer = keras.optimizers.AdamW(args.rate, weight_decay=0.02, clipnorm=5.0)
    training = Training(
        args.work, args.minutes, model, average, optimizer, args.rate,
        warming=300, averaging=0.01, every=5, kept={"mean": None, "faces": len(photographs)},
    )  # fmt: skip
    mean = training.kept["mean"]
    views = Views(photographs, args.teacher, mean and np.array(mean, np.float32), args.batch, args.seed + training.step)
    training.kept["mean"] = views.mean.tolist()
    views.side = side_at(training.progress)
    test = lfw_test_crops(args.lfw, STAGES[0][1])

    @tf.function(reduce_retracing=True)
    def train_step(x: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            e = tf.math.l2_normalize(model(x, training=True), axis=1)
            t = tf.math.l2_normalize(target, axis=1)
            loss, cosine, relation = distillation(e, t)
        training.apply(tape.gradient(loss, model.trainable_variables))
        return cosine, relation

    @tf.function
    def embed(x: tf.Tensor) -> tf.Tensor:
        return average(x, training=False)

    def report(means: np.ndarray) -> str:
        nonlocal test
        if views.side != test.images.shape[1]:
            test = lfw_test_crops(args.lfw, views.side)
        parts = [embed(standardized(test.images[i : i + 64])) for i in range(0, len(test.images), 64)]
        accuracy = best_accuracy(np.concatenate([part.numpy() for part in parts]), test)
        return f"side {views.side} cosine {means[0]:.4f} relation {means[1]:.5f} sets 7-8 best accuracy {accuracy:.4f}"

    with ahead(views.batches().__next__, 12) as ready:

        def next_step() -> tuple[tf.Tensor, tf.Tensor]:
            views.side = side_at(training.progress)
            return train_step(*ready.get())

        training.run(next_step, report)


if __name__ == "__main__":
    main()
