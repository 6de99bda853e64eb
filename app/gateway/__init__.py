"""Requests answered in this process by handlers that are swapped while it runs: routes, modules, versions, calls."""
