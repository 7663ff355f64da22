"""Train the denoiser unet-robust end to end: on crops that an attack through it and the verifier has moved.

Filters and denoisers that were trained on noise fall to who knows them. This one sees such attackers: each step attacks
a batch by the gradients of the verifier behind the denoiser, in L2 balls of random size, and trains the denoiser so
that the verifier gives to the denoised probe the embedding of the clean crop. The verifier stays as it is. It begins
with the weights of the denoiser `smoothing`, and the attacks are those of facenet-robust's training.

    python models/unet-robust/train.py --lfw LFW --faces FACES --work build/unet-robust --minutes 60
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]

from adversarial import attacked, goals, watcher
from denoiser_networks import NETWORKS
from training import Training, ahead, options
from training_faces import training_photographs, watched_pairs

SIDE = 160
# The largest L2 norm of the attacks in training: RMS 2.7/255, somewhat above the gate's 2.15/255.
EPSILON = 2.7 / 255 * np.sqrt(SIDE * SIDE * 3)
WATCHED_EPSILON = 2.15 / 255 * np.sqrt(SIDE * SIDE * 3)
WATCHED_STEPS, WATCHED_PAIRS = 10, 60
# The weight of clean crops beside attacked ones.
CLEAN = 0.25


def main() -> None:
    parser = options(__doc__, minutes=60, rate=5e-4, batch=16)
    parser.add_argument("--verifier", default="facenet-mini")
    args = parser.parse_args()

    import keras
    import tensorflow as tf

    from toolkit.networks import build
    from toolkit.networks.weights import load_weights
    from toolkit.verifiers.checkpoints import load_network
    from toolkit.verifiers.manifest import find_manifest
    from toolkit.verifiers.tensorflow import tensorflow_model_input

    keras.utils.set_random_seed(args.seed)
    photographs = training_photographs(args.lfw, args.faces)
    watched, genuine = watched_pairs(args.lfw, SIDE, WATCHED_PAIRS)
    manifest = find_manifest(args.verifier)
    network = load_network(manifest.checkpoint, True)
    model, average = build(**NETWORKS["unet-robust"]), build(**NETWORKS["unet-robust"])
    load_weights(model, ROOT / "models/smoothing/smoothing.weights.h5")
    optimizer = keras.optimizers.Adam(args.rate, clipnorm=1.0)
    training = Training(args.work, args.minutes, model, average, optimizer, args.rate, kept={"faces": len(photographs)})

    def bare(crops: tf.Tensor) -> tf.Tensor:
        return tf.math.l2_normalize(network(tensorflow_model_input(crops, manifest.input)), axis=-1)

    def behind(denoiser: keras.Model, crops: tf.Tensor) -> tf.Tensor:
        return bare(tf.clip_by_value(denoiser(crops, training=False), 0.0, 1.0))

    @tf.function
    def train_step(clean8: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        clean = tf.cast(clean8, tf.float32) / 255.0
        target = bare(clean)
        goal, sign = goals(target)
        epsilon = EPSILON * tf.random.uniform((tf.shape(clean)[0], 1, 1, 1))
        probes = tf.stop_gradient(attacked(lambda x: behind(model, x), clean, goal, sign, epsilon, 1))
        with tf.GradientTape() as tape:
            moved, still = (
                tf.reduce_mean(1.0 - tf.reduce_sum(behind(model, crops) * target, axis=1)) for crops in (probes, clean)
            )
            loss = moved + CLEAN * still
        training.apply(tape.gradient(loss, model.trainable_variables))
        return moved, still

    watch = watcher(lambda x: behind(average, x), watched, genuine, WATCHED_EPSILON, WATCHED_STEPS, 20)

    def report(means: np.ndarray) -> str:
        return f"moved {means[0]:.4f} still {means[1]:.4f} {watch()}"

    rng = np.random.default_rng(args.seed + training.step)

    def views() -> np.ndarray:
        return photographs.views(rng.integers(len(photographs), size=args.batch), SIDE, rng)

    with ahead(views) as ready:
        training.run(lambda: train_step(ready.get()), report)


if __name__ == "__main__":
    main()
