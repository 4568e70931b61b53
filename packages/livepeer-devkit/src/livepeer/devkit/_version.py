"""The version, a literal, so that importing the package reads no metadata."""

__version__ = "0.1.0"
