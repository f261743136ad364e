"""The demo: a small world to learn from, and the run that makes the bundled weights."""
