"""Which layers are local in tests of every local inference."""


def layers_for(local):
    """Options of a Local VAE: the exact mode needs a likelihood that is linear in the local weights."""
    return {"local_layers": "head"} if local in ("exact", "laplace-exact") else {}
