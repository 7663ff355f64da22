"""Selection: measures the cost of profiles, and recommends one to deploy."""
