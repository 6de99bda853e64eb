"""The private network between points of presence: addresses that names decide, tunnels, and what changes in a plan."""
