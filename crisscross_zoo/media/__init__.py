"""Media files in, clips out. The only room that opens media."""
