"""A real model server of the open inference protocol, KServe's, in a process of its own."""
