"""The pool of processes that work on files."""
