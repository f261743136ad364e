"""Checkpoints: the manifest, where they are, and how they become an encoder."""
