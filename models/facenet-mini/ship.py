"""Turn a trained facenet-mini into what is shipped: weights, threshold, manifest, ONNX file and card.

python models/facenet-mini/ship.py --lfw LFW --work build/facenet-mini
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1])]

from shipping import EMBEDDING_SIZE, WIDTH, asked, ship_verifier

from toolkit.networks.folding import fold
from toolkit.networks.inception_resnet_v1 import inception_resnet_v1

SIDE = 160

CARD = """\
# facenet-mini

An Inception-ResNet-v1 ({parameters:,} parameters, width {width}, {size}-D, 160 x 160 crops) for **reference and
tests**: it lets an audit run from end to end on any machine. It is not fit to decide about people.

## How it was made

`train.py` distilled dlib's ResNet-29 (CC0) on {faces:,} faces: those of LFW sets 1-6 and face chips without names
(UTKFace, for non-commercial research). The student learns the teacher's embedding, less its mean, of the same
randomly placed, mirrored and blended crops; no identity label is used. {minutes:.0f} minutes on two busy CPU cores,
{steps:,} steps of 64 crops.

`ship.py` folded the normalizations into the convolutions, rounded the weights to float16, chose the threshold on the
pairs of LFW sets 1-6, exported the ONNX file and measured what follows. The people of sets 1-6 were seen in training:
only the last column is a measure of quality.

## Clean verification

{rows}

Intervals are 95 % Wilson intervals. Settings of the training were chosen while looking at sets 7-8.

    sixpixels evaluate facenet-mini --pairs LFW --folds 7,8

## Limits

Trained on few people, many of them public figures of the early 2000s; error rates differ between groups of people and
were not measured by group. It must not be used to identify, admit, refuse or watch anybody.
"""


def main() -> None:
    lfw, work, state = asked(__doc__)
    trained = inception_resnet_v1(EMBEDDING_SIZE, WIDTH, input_side=None)
    trained.load_weights(work / "average.weights.h5")
    shipped = inception_resnet_v1(EMBEDDING_SIZE, WIDTH, SIDE, folded=True)
    fold(trained, shipped)
    ship_verifier(HERE, shipped, SIDE, "distilled by train.py", CARD, state, lfw)


if __name__ == "__main__":
    main()
