"""Train facenet-robust: facenet-mini's network, fine-tuned on crops that an attack has moved.

Each step attacks the batch with the network's own gradients, in an L2 ball of random size up to EPSILON, and trains the
embeddings of the attacked crops to be those that a teacher gives to the clean ones (adversarial training, Madry et al.
2018, arXiv:1706.06083; on embeddings without labels, Schlarmann et al. 2024, arXiv:2402.12336). Half of the attacks
flee from the own face, half approach another one. The crops are smaller than facenet-mini's: half the cost of a step
is worth more than details.

    python models/facenet-robust/train.py --lfw LFW --faces FACES --teacher dlib_resnet.onnx \
        --work build/facenet-robust --minutes 60
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]

from adversarial import attacked, goals, watcher
from shipping import EMBEDDING_SIZE, WIDTH
from training import Training, ahead, distillation, options
from training_faces import teacher_embeddings, training_photographs, watched_pairs

SIDE = 96
# The largest L2 norm of the attacks in training: RMS 2.7/255, somewhat above the gate's 2.15/255.
EPSILON = 2.7 / 255 * np.sqrt(SIDE * SIDE * 3)
WATCHED_EPSILON = 2.15 / 255 * np.sqrt(SIDE * SIDE * 3)
WATCHED_STEPS = 10
# Steps of the attack in training, before and after this share of the time.
STEPS, LATE = (1, 2), 0.6
WATCHED_PAIRS = 200


def main() -> None:
    args = options(__doc__, minutes=60, rate=1e-3, batch=48, teacher=True).parse_args()

    import keras
    import tensorflow as tf

    from toolkit.networks.inception_resnet_v1 import inception_resnet_v1
    from toolkit.networks.weights import load_weights

    keras.utils.set_random_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    photographs = training_photographs(args.lfw, args.faces)
    wanted = teacher_embeddings(args.teacher, photographs, args.work / "teacher.npy")
    watched, genuine = watched_pairs(args.lfw, SIDE, WATCHED_PAIRS)

    model, average = (inception_resnet_v1(EMBEDDING_SIZE, WIDTH, None, folded=True) for _ in range(2))
    load_weights(model, ROOT / "models/facenet-mini/facenet-mini.weights.h5")
    training = Training(
        args.work, args.minutes, model, average,
        keras.optimizers.AdamW(args.rate, weight_decay=0.02, clipnorm=5.0), args.rate,
        every=6, kept={"faces": len(photographs)},
    )  # fmt: skip

    def embed(network: keras.Model, crops: tf.Tensor) -> tf.Tensor:
        return tf.math.l2_normalize(network((crops * 255.0 - 127.5) / 128.0, training=True), axis=1)

    @tf.function
    def train_step(clean8: tf.Tensor, target: tf.Tensor, steps: int) -> tuple[tf.Tensor, tf.Tensor]:
        clean = tf.cast(clean8, tf.float32) / 255.0
        goal, sign = goals(target)
        epsilon = EPSILON * tf.random.uniform((tf.shape(clean)[0], 1, 1, 1))
        probes = tf.stop_gradient(attacked(lambda x: embed(model, x), clean, goal, sign, epsilon, steps))
        with tf.GradientTape() as tape:
            e = embed(model, probes)
            loss, cosine, relation = distillation(e, target)
        training.apply(tape.gradient(loss, model.trainable_variables))
        return cosine, relation

    watch = watcher(lambda x: embed(average, x), watched, genuine, WATCHED_EPSILON, WATCHED_STEPS, 50)

    def report(means: np.ndarray) -> str:
        return f"cosine {means[0]:.4f} relation {means[1]:.5f} {watch()}"

    rng = np.random.default_rng(args.seed + training.step)

    def views() -> tuple[np.ndarray, np.ndarray]:
        chosen = rng.integers(len(photographs), size=args.batch)
        return photographs.views(chosen, SIDE, rng), wanted[chosen]

    with ahead(views) as ready:
        training.run(lambda: train_step(*ready.get(), STEPS[training.progress > LATE]), report)


if __name__ == "__main__":
    main()
