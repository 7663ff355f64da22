"""The fast minimum-norm attack in Linf: the smallest largest change of a value."""

from __future__ import annotations

from toolkit.attacks.fmn import Fmn

ATTACK = Fmn(name="fmn-linf", norm="linf")
