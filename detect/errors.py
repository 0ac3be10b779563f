"""The one exception for what a user can cause and mend."""


class DetectError(Exception):
    """A fault in the user's input: a file, a setting, an argument.

    The message is complete by itself: what was expected, what was found, where (file, line or
    object), and what to do. The command line prints it without a traceback and exits with 2.
    """
