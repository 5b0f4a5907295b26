"""The command line, one file a command.

Progress and errors go to stderr; with --json, stdout is one JSON document and nothing else. Nothing is imported here
before Ctrl-C is understood: most of a short command's time is imports.
"""

from .ending import run


def main() -> None:
    """`tinytrain`."""
    run("tinytrain")


def compile_main() -> None:
    """`tinytrain-compile`: the same as `tinytrain compile`."""
    run("tinytrain-compile")
