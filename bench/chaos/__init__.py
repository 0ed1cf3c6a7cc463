"""Real processes under trouble: nothing accepted is lost."""
