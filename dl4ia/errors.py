"""The errors that a user or a trial is meant to see."""


class InputError(Exception):
    """A mistake in what the user gave: one line that names it, what was expected, what to do.

    The command prints the line and ends with exit status 2, without a traceback.
    """


def first_line(error: BaseException) -> str:
    """What an error says, in one line; the underlying one where a library has wrapped it."""
    cause = error.__cause__
    text = str(getattr(cause, "orig", None) or cause or error).strip()
    return text.splitlines()[0] if text else type(error).__name__


class TrackingError(Exception):
    """MLflow could not be read or written; what was to be written may be written later."""


class TrialFailure(Exception):
    """A trial that cannot be scored (non-finite loss, out of memory): recorded as its reason."""


class OutOfMemory(TrialFailure):
    """One that the machine is to blame for: at another moment, or elsewhere, it may not fail."""

    advice = "the same command goes on, once there is more memory, or with fewer --workers"
