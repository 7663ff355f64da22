"""Train facenet-mini: Inception-ResNet-v1 at reduced width, distilled from an ONNX verifier.

The student learns the teacher's embedding *function*: both see the same randomly placed, mirrored and
blended crop ("a good teacher is patient and consistent", Beyer et al. 2021, arXiv:2106.05237), which makes
16,000 faces without names as useful as the named ones. The schedule is in wall-clock time, and a run
continues from its last checkpoint, so the same script serves two cores for hours or a GPU for minutes.

    python models/facenet-mini/train.py --lfw LFW --faces FACES --teacher dlib_resnet.onnx \
        --work build/facenet-mini --minutes 120
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]

from training_faces import TEMPLATE_150, Photographs, chip_photographs, jitter, lfw_photographs

from toolkit.faces.crops import CropSet, crop_pairs
from toolkit.faces.pairs import load_pairs
from toolkit.statistics.verification import best_threshold
from toolkit.verifiers.scores import distances, normalized

EMBEDDING_SIZE = 128
# Share of the newest weights in their moving average: a horizon of 100 steps.
AVERAGING = 0.01
WIDTH = 0.375
# (share of the time, side of the training crop): small crops first, because they cost half as much.
STAGES = ((0.5, 112), (1.0, 160))


class Views:
    """A thread that makes batches of (crops, teacher embeddings) from random views of the faces."""

    def __init__(self, photographs: Photographs, teacher: Path, mean: np.ndarray | None, seed: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        self.session = onnxruntime.InferenceSession(str(teacher), options, providers=["CPUExecutionProvider"])
        self.photographs = photographs
        self.rng = np.random.default_rng(seed)
        self.side = STAGES[0][1]
        self.mean = self.teacher_mean() if mean is None else mean
        self.ready: queue.Queue = queue.Queue(maxsize=12)

    def start(self) -> None:
        threading.Thread(target=self._produce, daemon=True).start()

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

    def _produce(self) -> None:
        while True:
            students, targets, side = [], [], self.side
            for _ in range(16):
                pairs = [self.view(side) for _ in range(64)]
                students.append(np.stack([s for s, _ in pairs])[..., ::-1])
                targets.append(self.teacher_embeddings([t for _, t in pairs]) - self.mean)
            student, target = np.concatenate(students), np.concatenate(targets)
            for _ in range(2):  # each view twice: the teacher costs a third of a training step
                order = self.rng.permutation(len(student))
                for at in range(0, len(order), 64):
                    chosen = order[at : at + 64]
                    self.ready.put((self.photometric(student[chosen]), target[chosen]))


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    import keras
    import tensorflow as tf

    from toolkit.networks.inception_resnet_v1 import inception_resnet_v1

    keras.utils.set_random_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    photographs = lfw_photographs(args.lfw)
    photographs.extend(chip_photographs(args.faces))
    print(f"{len(photographs)} training faces", flush=True)

    model = inception_resnet_v1(EMBEDDING_SIZE, WIDTH, input_side=None)
    average = inception_resnet_v1(EMBEDDING_SIZE, WIDTH, input_side=None)
    average.set_weights(model.get_weights())
    optimizer = keras.optimizers.AdamW(args.rate, weight_decay=0.02, clipnorm=5.0)
    optimizer.build(model.trainable_variables)
    checkpoint = tf.train.Checkpoint(model=model, average=average, optimizer=optimizer)
    state_path, mean = args.work / "state.json", None
    spent, step = 0.0, 0
    if state_path.exists():
        state = json.loads(state_path.read_text())
        spent, step, mean = state["minutes"], state["step"], np.array(state["mean"], np.float32)
        checkpoint.restore(state["checkpoint"]).expect_partial()
        print(f"continuing from minute {spent:.1f}, step {step}", flush=True)

    views = Views(photographs, args.teacher, mean, args.seed + step)
    views.side = side_at(spent / args.minutes)
    views.start()
    test = lfw_test_crops(args.lfw, STAGES[0][1])

    @tf.function(reduce_retracing=True)
    def train_step(x: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            e = tf.math.l2_normalize(model(x, training=True), axis=1)
            t = tf.math.l2_normalize(target, axis=1)
            cosine = tf.reduce_mean(tf.reduce_sum(e * t, axis=1))
            # The geometry of the batch: what a verifier uses is distances, not places.
            relation = tf.reduce_mean(tf.square(tf.matmul(e, e, transpose_b=True) - tf.matmul(t, t, transpose_b=True)))
            loss = 1.0 - cosine + 4.0 * relation
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        for slow, fast in zip(average.variables, model.variables, strict=True):
            slow.assign(slow + AVERAGING * (fast - slow))
        return cosine, relation

    @tf.function
    def embed(x: tf.Tensor) -> tf.Tensor:
        return average(x, training=False)

    def save() -> None:
        path = checkpoint.save(str(args.work / "checkpoint"))
        state = {"minutes": spent, "step": step, "checkpoint": path, "mean": views.mean.tolist()}
        state_path.write_text(json.dumps({**state, "faces": len(photographs)}))
        average.save_weights(args.work / "average.weights.h5")

    started, last_report, sums, count = time.monotonic() - spent * 60, spent, np.zeros(2), 0
    while spent < args.minutes:
        progress = spent / args.minutes
        views.side = side_at(progress)
        optimizer.learning_rate.assign(
            args.rate * min(1.0, (step + 1) / 300) * max(0.005, 0.5 * (1 + np.cos(np.pi * progress)))
        )
        x, target = views.ready.get()
        sums += [float(v) for v in train_step(x, target)]
        step, count = step + 1, count + 1
        spent = (time.monotonic() - started) / 60
        if spent - last_report > 5 or spent >= args.minutes:
            if x.shape[1] != test.images.shape[1]:
                test = lfw_test_crops(args.lfw, x.shape[1])
            parts = [embed(standardized(test.images[i : i + 64])) for i in range(0, len(test.images), 64)]
            accuracy = best_accuracy(np.concatenate([part.numpy() for part in parts]), test)
            print(
                f"minute {spent:6.1f} step {step} side {x.shape[1]} cosine {sums[0] / count:.4f} "
                f"relation {sums[1] / count:.5f} sets 7-8 best accuracy {accuracy:.4f}",
                flush=True,
            )
            save()
            last_report, sums, count = spent, np.zeros(2), 0


if __name__ == "__main__":
    main()
