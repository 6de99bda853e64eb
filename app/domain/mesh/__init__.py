"""The private network between points of presence: addresses derived from names, tunnels, and changes of a plan."""
