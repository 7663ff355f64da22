"""Remote verifiers, called over a network. Calls are limited in rate and number, and answers are not trusted."""
