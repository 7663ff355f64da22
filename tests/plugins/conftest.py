"""The example is a distribution of its own, and has no tests."""

collect_ignore = ["example"]
