"""One run from begin to end."""
