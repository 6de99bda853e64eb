"""The status listener: /metrics, /live and /ready."""
