"""The compiler's version, where every file can read it without importing the package's front door."""

__version__ = "0.1.0"
