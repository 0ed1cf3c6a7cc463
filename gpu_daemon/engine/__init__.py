"""The process that draws: the only room that imports torch. It knows nothing of the router."""
