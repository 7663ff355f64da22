"""Results: writes and reads the files of a finished audit."""
