"""What is wrong with a host, said to the person who can mend it."""


class HostError(Exception):
    """A host that cannot be changed as asked. Its text says what is wrong and what to do now."""
