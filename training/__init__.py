"""Makes the models that ship inside the package. Run by developers; nothing here is installed."""
