"""The fixtures are in fixtures.py, where the tests of the command line find them too."""

from __future__ import annotations

from weights.fixtures import narrow_states, safetensors_files, server, write_manifest

__all__ = ["narrow_states", "safetensors_files", "server", "write_manifest"]
