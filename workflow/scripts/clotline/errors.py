"""The one exception for everything that a user can put right."""


class ClotlineError(Exception):
    """Bad input or a failed check; the message says what is wrong, where and what to do."""
