"""Turn a trained denoiser into what is shipped: weights in half precision, ONNX file and manifest.

python models/denoising/ship.py unet --work build/unet
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]

from denoiser_networks import NETWORKS, SCRIPTS

from toolkit.defenses.denoiser import DenoiserManifest
from toolkit.export.denoiser_export import export_denoiser
from toolkit.files import sha256, write_bytes
from toolkit.networks import build
from toolkit.networks.weights import save_weights

LARGEST_DIFFERENCE = 1e-4

MANIFEST = """\
schema = 1
name = "{name}"

[model]
file = "{name}.onnx"
sha256 = "{model}"
license = "MIT"
provenance = "Trained by {script} for {minutes:.0f} minutes, {steps} steps; see CARD.md"

[checkpoint]
file = "{name}.weights.h5"
sha256 = "{weights}"

[checkpoint.network]
{arguments}

[input]
layout = "NCHW"
channels = "RGB"
range = [0, 1]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=sorted(NETWORKS))
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    name, arguments = args.network, dict(NETWORKS[args.network])

    trained = build(**arguments)
    trained.load_weights(args.work / "average.weights.h5")
    folder = ROOT / "models" / name
    folder.mkdir(exist_ok=True)
    weights, onnx = folder / f"{name}.weights.h5", folder / f"{name}.onnx"
    save_weights(trained, weights, half=True)

    state = json.loads((args.work / "state.json").read_text())

    def write_manifest(model: str) -> None:
        text = MANIFEST.format(
            name=name,
            model=model,
            weights=sha256(weights),
            minutes=state["minutes"],
            steps=state["step"],
            script=SCRIPTS[name],
            arguments="\n".join(f"{key} = {json.dumps(value)}" for key, value in arguments.items()),
        )
        write_bytes(folder / "denoiser.toml", text.encode())

    write_manifest("")
    manifest = DenoiserManifest(
        path=folder / "denoiser.toml",
        name=name,
        model=onnx,
        sha256="",
        license="MIT",
        provenance="",
        weights=weights,
        weights_sha256=sha256(weights),
        network=arguments,
    )
    result = export_denoiser(manifest, onnx)
    if result.largest_difference > LARGEST_DIFFERENCE:
        sys.exit(f"{onnx}: differs from TensorFlow by {result.largest_difference:.1e}")
    write_manifest(result.sha256)
    print(f"{onnx}: {onnx.stat().st_size} bytes, differs from TensorFlow by {result.largest_difference:.1e}")


if __name__ == "__main__":
    main()
