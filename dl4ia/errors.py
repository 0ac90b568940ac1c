"""The errors that a user or a trial is meant to see."""


class InputError(Exception):
    """A mistake in what the user gave: one line that names it, what was expected, what to do.

    The command prints the line and ends with exit status 2, without a traceback.
    """


class TrialFailure(Exception):
    """A trial that cannot be scored (non-finite loss, out of memory): recorded as its reason."""
