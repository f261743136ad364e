"""Generated clips: those of the demo run, and those that the demo weights are pretrained on."""
