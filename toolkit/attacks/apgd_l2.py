"""APGD in an L2 ball. Its default radius is an RMS of 2.15/255 on crops of 160 x 160 pixels."""

from __future__ import annotations

from toolkit.attacks.apgd import Apgd

ATTACK = Apgd(name="apgd-l2", norm="l2", epsilon=2.3)
