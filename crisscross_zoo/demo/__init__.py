"""Generated clips: the eight classes of the demo run, and a world to pretrain on."""
