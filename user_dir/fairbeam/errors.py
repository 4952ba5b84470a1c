"""The errors fairbeam raises for things a user can mend.

Each message names the value, the place (file, line, option or tensor) and what was expected. Commands print
the message alone, without a traceback, and exit with status 2; library users catch ``FairbeamError``.
"""


class FairbeamError(Exception):
    """Base of every error that is the input's or the configuration's fault, not fairbeam's."""


class InputError(FairbeamError):
    """Text, data or files that cannot be used as they are."""


class ConfigError(FairbeamError):
    """Options or configuration values that contradict each other or are out of range."""


class CheckpointError(FairbeamError):
    """A checkpoint or bundle that is truncated, hostile, or does not fit the network it is loaded into."""
