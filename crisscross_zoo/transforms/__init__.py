"""Tensor values before the network: the evaluation transforms of frames and sound."""
