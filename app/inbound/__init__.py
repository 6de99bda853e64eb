"""Who calls us: client connections, and the small HTTP server for metrics and readiness."""
