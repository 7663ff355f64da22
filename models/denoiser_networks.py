"""The networks of the shipped denoisers, and the scripts that train them.

What is shipped of each network: full width is out of reach of a CPU, in training and in front of a verifier. DnCNN is
trained without its normalizations: with them, in batches of few noise levels, it did not leave the identity.
"""

from __future__ import annotations

from typing import Any

NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"name": "unet", "width": 0.375},
    "red30": {"name": "red30", "width": 16},
    "dncnn": {"name": "dncnn", "width": 16, "folded": True},
    "smoothing": {"name": "unet", "width": 0.5, "levels": 4, "shuffle": 2},
    "unet-robust": {"name": "unet", "width": 0.5, "levels": 4, "shuffle": 2},
}
SCRIPTS = dict.fromkeys(NETWORKS, "models/denoising/train.py")
SCRIPTS |= {name: f"models/{name}/train.py" for name in ("smoothing", "unet-robust")}
