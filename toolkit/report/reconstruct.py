"""Terminal report of a reconstruction, for 80 columns."""

from __future__ import annotations

from rich.console import Console

from toolkit.audit.transfer.reconstruct import Reconstruction
from toolkit.report.terminal import bullet, counted, facts_table, rule

_LEGEND = (
    "opened: people that the target takes to be the same as one of the fixed faces as it is. The other rows count the "
    "other people. solved: the surrogate takes the embedding that the scores give to be the person. built: it takes "
    "the built image to be the person. accepted: the target does. Rates in %, with 95 % Wilson intervals."
)


def print_reconstruction(result: Reconstruction, console: Console) -> None:
    """Print how many enrolled people were rebuilt from the target's scores."""
    r = result
    console.print()
    rule(console, f"sixpixels reconstruct   {r.target} from its scores")
    facts = facts_table()
    facts.add_row("target", f"{r.target} with profile {r.profile}   sha256 {r.target_identity[:12]}")
    facts.add_row("surrogate", f"{r.surrogate} with {r.attack}   sha256 {r.surrogate_identity[:12]}")
    facts.add_row("people", r.pairs_source)
    facts.add_row("faces", f"{r.faces_source}; {r.queries} scores for each person, none depends on another")
    facts.add_row("left out", f"{r.left_out} people or faces without a face in both crops")
    for name, rate in (("opened", r.opened), ("solved", r.solved), ("built", r.built), ("accepted", r.accepted)):
        facts.add_row(name, counted(rate))
    console.print(facts)
    console.print(_LEGEND, style="dim")
    if r.flagged:
        bullet(console, f"the target's detector flagged {r.flagged} built images")
