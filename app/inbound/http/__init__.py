"""HTTP frontends: a client connection, its requests, and the two responders that serve them."""
