"""What can go wrong in the lab, as one line for the user."""


class LabError(Exception):
    """The lab cannot do what was asked; the text is one line that says what happened and what to do or read."""


class CommandError(LabError):
    """A program that the lab called failed, ran past its time limit or is not installed."""
