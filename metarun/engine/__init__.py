"""From one task to a meta-batch."""
