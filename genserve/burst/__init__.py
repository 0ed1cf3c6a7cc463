"""`genserve burst`: a load on a running service, what came of it, and what that means."""
