"""Checkpoint files and the Hub's client."""
