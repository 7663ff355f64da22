"""Replaying: runs probes through the deployed verifier, and checks that the results can be trusted."""
