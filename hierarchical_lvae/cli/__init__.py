"""The command line: one file per command, with heavy imports inside the command."""

from hierarchical_lvae.cli.app import hlvae as main

__all__ = ["main"]
