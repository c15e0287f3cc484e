"""The one exception that means: the input is at fault, not the program."""


class BadInput(Exception):
    """Something the user gave cannot be used. The message says what, where, and what to do about it."""
