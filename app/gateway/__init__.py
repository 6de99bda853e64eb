"""Request handlers that run in this process and are replaced while it runs: routes, modules, versions, calls."""
