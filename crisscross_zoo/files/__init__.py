"""Files: finding media, writing whole, local and remote."""
