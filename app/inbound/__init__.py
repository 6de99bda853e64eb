"""Everything that listens: TCP, HTTP and DNS frontends, the status listener and the admin API's server."""
