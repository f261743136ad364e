"""Command line: parse, call the public API, print."""
