"""The exception behind every ``elsa-ext`` message that a user can act on."""


class CommandError(Exception):
    """A mistake that the user can put right: ``main`` prints it as one line and returns exit code 2."""
