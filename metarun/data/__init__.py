"""Task sources, a file for each."""
