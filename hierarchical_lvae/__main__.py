"""Run the `hlvae` command with `python -m hierarchical_lvae`."""

from hierarchical_lvae.cli import main

if __name__ == "__main__":
    main()
