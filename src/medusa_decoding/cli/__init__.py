"""The command line: one small file per verb, the entry point in `main`."""
