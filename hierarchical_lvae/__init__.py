"""The Local VAE as a Pyro program: hierarchical model, amortised local inference, and the bound between them."""

__version__ = "0.1.0"
