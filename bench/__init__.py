"""Commands that print every figure the documentation claims."""
