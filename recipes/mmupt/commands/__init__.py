"""The subcommands of `mmupt`, one module each: options, one call of the library, and its errors as messages.

The docstring of a module is its help: what the command does, then indented examples. `run(parser, words)` adds the
options, parses and runs; it returns the exit status, None for 0. `mmupt.cli` has the list.
"""
