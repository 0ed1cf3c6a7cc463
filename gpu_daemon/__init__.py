"""One process a GPU: its control part talks to the router, its engine process draws."""
