"""The Local VAE in Pyro: a hierarchical model, amortised local inference, and the evidence lower bound (ELBO)."""

__version__ = "0.2.0"
