"""HTTP in, broker messages out, and back."""
