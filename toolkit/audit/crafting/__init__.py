"""Crafting: the jobs that craft adversarial probes, and the workers that run them."""
