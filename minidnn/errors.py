"""Named errors: each says what was expected, what came, and where.

All are subclasses of ValueError or RuntimeError, so ordinary code catches them too.
The command line turns each into one line and exit code 2.
"""

from __future__ import annotations

from minidnn.kernels.checks import DTypeError, InputError, LayoutError, ShapeError

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DTypeError",
    "DataError",
    "GraphError",
    "InputError",
    "LayoutError",
    "MissingExtraError",
    "NonFiniteError",
    "OptimizerError",
    "ShapeError",
    "StateDictError",
]


class DataError(InputError):
    """A data file is missing, truncated or corrupted, or a label or pixel is out of range."""


class ConfigError(InputError):
    """A setting, option or name is unknown or out of range."""


class StateDictError(InputError):
    """Names or shapes of a state dict do not fit the model."""


class CheckpointError(RuntimeError):
    """A checkpoint is missing, corrupted, foreign, or does not fit the run."""


class GraphError(RuntimeError):
    """The tape was used in a way it cannot answer, such as a second backward()."""


class OptimizerError(RuntimeError):
    """An optimiser's parameters are no longer its own to update."""


class NonFiniteError(RuntimeError):
    """A loss or value became NaN or infinite."""


class MissingExtraError(RuntimeError):
    """An optional package is not installed; the message names the pip command."""
