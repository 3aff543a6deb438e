"""The errors that QSMxT raises on purpose.

Every message names the offender, what was expected, what was found and the remedy. Each class is also a
builtin error, so that callers who know nothing of QSMxT can still catch it. ``exit_code`` is what the
command line returns when nothing else went wrong.
"""

from __future__ import annotations


class QSMxTError(Exception):
    """Base of all deliberate errors."""

    exit_code = 1


class ParameterError(QSMxTError, ValueError):
    """A parameter lies outside its declared bounds, has the wrong type or does not exist."""

    exit_code = 64


class InputError(QSMxTError, ValueError):
    """An array or file cannot be used: wrong shape, unit, range, or content."""

    exit_code = 65


class MissingInputError(QSMxTError, FileNotFoundError):
    """A file, folder or metadata entry that is needed does not exist or cannot be read."""

    exit_code = 66


class SelectionError(QSMxTError, LookupError):
    """Filters or labels selected nothing."""

    exit_code = 18


class ValidationError(QSMxTError, ValueError):
    """The input dataset is not valid BIDS."""

    exit_code = 16


class WorkflowError(QSMxTError, RuntimeError):
    """A workflow could not be built."""

    exit_code = 70


class OutputError(QSMxTError, OSError):
    """An output cannot be created."""

    exit_code = 73


class MissingProgramError(QSMxTError, RuntimeError):
    """An optional program or package that was asked for is not installed."""

    exit_code = 69
