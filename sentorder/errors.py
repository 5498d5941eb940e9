"""The one exception that means: what the user gave is wrong, and here is the way out."""


class UserError(ValueError):
    """A mistake in an argument, a file or an environment.

    The message is one clear sentence (or one per line, where several things are wrong) that names the file, line or
    argument and says what to do. The command line prints it without a traceback; library code may catch it as the
    ``ValueError`` that it is.
    """


def first_line(error: Exception) -> str:
    """What another library's error says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
