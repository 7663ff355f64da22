"""Commands: each one parses its arguments, calls one public function and prints the result."""
