"""Train facenet-noise: a verifier that knows people in noisy crops, which is what randomized smoothing asks of it.

The network is that of facenet-mini, on averages of 2 x 2 pixels: it sees crops of 80 x 80. It begins with the weights
of facenet-robust. The embeddings of noisy crops are trained to be those that a teacher gives to the clean ones
(Cohen et al. 2019, arXiv:1902.02918, train with noise; here without labels). Behind the vote of the profile
`vote45` it needs no denoiser.

    python models/facenet-noise/train.py --lfw LFW --faces FACES --teacher dlib_resnet.onnx \
        --work build/facenet-noise --minutes 60
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]

from shipping import EMBEDDING_SIZE, WIDTH
from training import Training, ahead, distillation, options
from training_faces import teacher_embeddings, training_photographs, watched_pairs

from toolkit.statistics.verification import best_threshold

SIDE = 160
# Pixels squared that the network averages first. The noise is that of the defense `noise` with `block` of the same: on
# these averages, and of a standard deviation that is uniform between these.
AVERAGED = 2
SIGMAS = (0.05, 0.55)


def main() -> None:
    args = options(__doc__, minutes=60, rate=1.5e-3, batch=64, teacher=True).parse_args()

    import keras
    import tensorflow as tf

    from toolkit.networks.inception_resnet_v1 import inception_resnet_v1
    from toolkit.networks.weights import load_weights

    keras.utils.set_random_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    photographs = training_photographs(args.lfw, args.faces)
    wanted = teacher_embeddings(args.teacher, photographs, args.work / "teacher.npy")
    watched, genuine = watched_pairs(args.lfw, SIDE)

    model, average = (inception_resnet_v1(EMBEDDING_SIZE, WIDTH, None, folded=True) for _ in range(2))
    load_weights(model, ROOT / "models/facenet-robust/facenet-robust.weights.h5")
    training = Training(
        args.work, args.minutes, model, average,
        keras.optimizers.AdamW(args.rate, weight_decay=0.02, clipnorm=5.0), args.rate,
        kept={"faces": len(photographs)},
    )  # fmt: skip

    def noised(clean8: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        """What the layers see of noisy crops."""
        means = tf.nn.avg_pool2d(tf.cast(clean8, tf.float32) / 255.0, AVERAGED, AVERAGED, "VALID")
        noisy = tf.clip_by_value(means + sigma / AVERAGED * tf.random.normal(tf.shape(means)), 0.0, 1.0)
        return (noisy * 255.0 - 127.5) / 128.0

    @tf.function
    def train_step(clean8: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        noisy = noised(clean8, tf.random.uniform((tf.shape(clean8)[0], 1, 1, 1), *SIGMAS))
        with tf.GradientTape() as tape:
            e = tf.math.l2_normalize(model(noisy, training=True), axis=1)
            loss, cosine, relation = distillation(e, target)
        training.apply(tape.gradient(loss, model.trainable_variables))
        return cosine, relation

    @tf.function
    def embed(clean8: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        return tf.math.l2_normalize(average(noised(clean8, sigma), training=False), axis=1)

    def accuracy(sigma: float, draws: int = 4) -> float:
        """The best accuracy of single noisy probes against references that are means of draws."""
        parts = [
            np.stack([embed(watched.images[i : i + 64], tf.constant(sigma)).numpy() for _ in range(draws)])
            for i in range(0, len(watched.images), 64)
        ]
        found = np.concatenate(parts, axis=1)
        references = found[1:].sum(axis=0)
        references /= np.linalg.norm(references, axis=1, keepdims=True)
        d = np.sum(np.square(found[0, watched.index[:, 0]] - references[watched.index[:, 1]]), axis=1)
        return float(np.mean((d < best_threshold(d, genuine)) == genuine))

    def report(means: np.ndarray) -> str:
        found = " ".join(f"{sigma}: {accuracy(sigma):.4f}" for sigma in (0.0, 0.25, 0.45))
        return f"cosine {means[0]:.4f} relation {means[1]:.5f} best accuracy of one draw at {found}"

    rng = np.random.default_rng(args.seed + training.step)

    def views() -> tuple[np.ndarray, np.ndarray]:
        chosen = rng.integers(len(photographs), size=args.batch)
        return photographs.views(chosen, SIDE, rng), wanted[chosen]

    with ahead(views) as ready:
        training.run(lambda: train_step(*ready.get()), report)


if __name__ == "__main__":
    main()
