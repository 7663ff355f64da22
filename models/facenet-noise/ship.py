"""Turn a trained facenet-noise into what is shipped: weights, threshold, manifest, ONNX file and card.

python models/facenet-noise/ship.py --lfw LFW --work build/facenet-noise
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

from shipping import EMBEDDING_SIZE, WIDTH, asked, ship_verifier
from train import AVERAGED, SIDE, SIGMAS

from toolkit.networks.inception_resnet_v1 import inception_resnet_v1

CARD = """\
# facenet-noise

The network of facenet-mini ({parameters:,} parameters, width {width}, {size}-D) on averages of 2 x 2 pixels, fine-tuned
on noisy crops. It is for **reference and tests**: behind the vote of a profile such as `vote45` it decides with
a certificate, and needs no denoiser. It is not fit to decide about people.

## How it was made

`train.py` began with the shipped weights of facenet-robust. Each step added Gaussian noise to 64 of {faces:,} faces
(LFW sets 1-6, and face chips without names: UTKFace, for non-commercial research): to averages of 2 x 2 pixels, of a
standard deviation between {low:g} and {high:g} on single pixels. It then trained the embeddings of the noisy crops
towards those that dlib's ResNet-29 (CC0) gives to the clean ones. No identity label is used. {minutes:.0f} minutes on
two busy CPU cores, {steps:,} steps.

`ship.py` rounded the weights to float16, chose the threshold of clean crops on the pairs of LFW sets 1-6, exported the
ONNX file and measured what follows. The people of sets 1-6 were seen in training: only the last column is a measure of
quality.

## Clean verification, without a profile

{rows}

Intervals are 95 % Wilson intervals.

    sixpixels evaluate facenet-noise --pairs LFW --folds 7,8

## Behind a vote

[What it certifies, and what is left of it before an attacker who knows everything](../../docs/smoothing.md#the-table).

## Limits

Trained on few people, many of them public figures of the early 2000s; error rates differ between groups of people and
were not measured by group. It must not be used to identify, admit, refuse or watch anybody.
"""


def main() -> None:
    lfw, work, state = asked(__doc__)
    shipped = inception_resnet_v1(EMBEDDING_SIZE, WIDTH, SIDE, folded=True, averaged=AVERAGED)
    trained = inception_resnet_v1(EMBEDDING_SIZE, WIDTH, SIDE // AVERAGED, folded=True)
    trained.load_weights(work / "average.weights.h5")
    shipped.set_weights(trained.get_weights())
    made, (low, high) = "fine-tuned on noisy crops by train.py", SIGMAS
    card = CARD.replace("{low:g}", f"{low:g}").replace("{high:g}", f"{high:g}")
    ship_verifier(HERE, shipped, SIDE, made, card, state, lfw, AVERAGED)


if __name__ == "__main__":
    main()
