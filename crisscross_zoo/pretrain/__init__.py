"""Pretraining: model, loss, data and loop (section 3 of the paper, appendices D, F, G)."""

from __future__ import annotations
