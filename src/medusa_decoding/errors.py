"""The one family of errors for what a user did."""

from __future__ import annotations


class UserError(Exception):
    """A mistake the user can mend. The message is one line that says what is wrong and names the way out.

    The command line prints the message and exits with status 2; the Python API raises it as it is.
    """
