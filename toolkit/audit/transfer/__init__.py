"""Transfer: tests the probes of a finished audit on another verifier."""
