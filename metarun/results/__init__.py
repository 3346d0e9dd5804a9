"""Finished runs: found, compared, as a table, as a page."""
