"""The exceptions behind every ``elsa-ext`` message that a user can act on, and how exceptions are told in one line."""


class CommandError(Exception):
    """A mistake that the user can put right: ``main`` prints it as one line and returns exit code 2."""

    code = 2


class CommandFailed(CommandError):
    """What has failed although nothing was asked wrongly, such as a disk that is full: exit code 1."""

    code = 1


def describe(error: Exception) -> str:
    """Return what an exception says, without its number and class."""
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    text = str(error)
    if "DataLoader worker process" in text:
        # A data loader's worker hands over its whole traceback as text; the message stands after the class's name.
        text = text.rpartition("Error: ")[2]
    return text.strip()
