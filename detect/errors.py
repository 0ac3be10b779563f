"""The exceptions that a user meets: an input to fix, and a run that was stopped."""


class DetectError(Exception):
    """A fault in the user's input: a file, a setting, an argument.

    The message is complete by itself: what was expected, what was found, where (file, line or
    object), and what to do. The command line prints it without a traceback and exits with 2.
    """


class Interrupted(Exception):  # noqa: N818 — it is no error
    """Training was stopped by a signal and can be continued.

    Attributes:
        status: the exit status, 128 + the number of the signal, as shells have it.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
