"""Train the denoiser of the profile `smoothed` by the stability of the verifier behind it.

Randomized smoothing keeps the decisions that the verifier makes on noisy crops. A denoiser that was trained for PSNR
restores pixels. This one restores the embedding: the loss is 1 - cosine between the embeddings of the denoised and of
the clean crop (denoised smoothing, "Stab", Salman et al. 2020, arXiv:2003.01908, section 3.1). A first part of the time
trains the squared error, from which stability is found faster.

    python models/smoothing/train.py --lfw LFW --faces FACES --work build/smoothing --minutes 90
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]

from denoiser_networks import NETWORKS
from training import Training, ahead, options
from training_faces import training_photographs, watched_pairs

from toolkit.statistics.verification import best_threshold

SIDE = 160
# The noise is that of the defense `noise`: on averages of blocks of this many pixels squared, and of a standard
# deviation that is uniform between these.
BLOCK = 2
SIGMAS = (0.2, 0.55)
# The share of the time that trains the squared error.
WARMING = 0.15


def main() -> None:
    parser = options(__doc__, minutes=90, rate=1e-3, batch=32)
    parser.add_argument("--verifier", default="facenet-mini")
    args = parser.parse_args()

    import keras
    import tensorflow as tf

    from toolkit.networks import build
    from toolkit.verifiers.checkpoints import load_network
    from toolkit.verifiers.manifest import find_manifest
    from toolkit.verifiers.tensorflow import tensorflow_model_input

    keras.utils.set_random_seed(args.seed)
    photographs = training_photographs(args.lfw, args.faces)
    watched, genuine = watched_pairs(args.lfw, SIDE)

    manifest = find_manifest(args.verifier)
    network = load_network(manifest.checkpoint, True)
    model, average = build(**NETWORKS["smoothing"]), build(**NETWORKS["smoothing"])
    optimizer = keras.optimizers.Adam(args.rate, beta_2=0.99, clipnorm=1.0)
    training = Training(args.work, args.minutes, model, average, optimizer, args.rate)

    def embed(crops: tf.Tensor) -> tf.Tensor:
        return tf.math.l2_normalize(network(tensorflow_model_input(crops, manifest.input)), axis=-1)

    def noised(clean: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        means = tf.nn.avg_pool2d(clean, BLOCK, BLOCK, "VALID")
        noisy = tf.clip_by_value(means + sigma / BLOCK * tf.random.normal(tf.shape(means)), 0.0, 1.0)
        return tf.repeat(tf.repeat(noisy, BLOCK, axis=1), BLOCK, axis=2)

    @tf.function(reduce_retracing=True)
    def train_step(clean8: tf.Tensor, share: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        clean = tf.cast(clean8, tf.float32) / 255.0
        noisy = noised(clean, tf.random.uniform((tf.shape(clean)[0], 1, 1, 1), *SIGMAS))
        wanted = embed(clean)
        with tf.GradientTape() as tape:
            denoised = model(noisy, training=True)
            error = tf.reduce_mean(tf.square(denoised - clean))
            seen = embed(tf.clip_by_value(denoised, 0.0, 1.0)) if share > 0 else wanted
            instability = tf.reduce_mean(1.0 - tf.reduce_sum(seen * wanted, axis=-1))
            loss = share * instability + (1.0 - share) * tf.math.log(error) + share * error
        training.apply(tape.gradient(loss, model.trainable_variables))
        return error, instability

    @tf.function
    def noisy_embeddings(clean8: tf.Tensor, sigma: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        clean = tf.cast(clean8, tf.float32) / 255.0
        denoised = average(noised(clean, sigma), training=False)
        return embed(clean), embed(tf.clip_by_value(denoised, 0.0, 1.0))

    def accuracy(sigma: float) -> float:
        """The best accuracy of single noisy probes against clean references."""
        parts = [noisy_embeddings(watched.images[i : i + 32], sigma) for i in range(0, len(watched.images), 32)]
        clean, noisy = (np.concatenate([part[k].numpy() for part in parts]) for k in range(2))
        d = np.sum(np.square(noisy[watched.index[:, 0]] - clean[watched.index[:, 1]]), axis=1)
        return float(np.mean((d < best_threshold(d, genuine)) == genuine))

    def report(means: np.ndarray) -> str:
        found = " ".join(f"{sigma}: {accuracy(sigma):.4f}" for sigma in (0.25, 0.5))
        quality = -10 * np.log10(means[0])
        return f"PSNR {quality:.2f} dB instability {means[1]:.4f} best accuracy of one draw at {found}"

    rng = np.random.default_rng(args.seed + training.step)

    def views() -> np.ndarray:
        return photographs.views(rng.integers(len(photographs), size=args.batch), SIDE, rng)

    with ahead(views) as ready:
        training.run(lambda: train_step(ready.get(), tf.constant(float(training.progress >= WARMING))), report)


if __name__ == "__main__":
    main()
