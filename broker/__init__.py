"""A real-time alert broker for astronomy, from CCD images to filtered Kafka topics."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("nightjar-broker")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
