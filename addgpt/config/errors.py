"""What people can do wrong."""


class UsageError(ValueError):
    """Asked for something that there is not; the message is one line that names what is valid."""
