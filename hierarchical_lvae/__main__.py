"""`python -m hierarchical_lvae` is `hlvae`."""

from hierarchical_lvae.cli import main

if __name__ == "__main__":
    main()
