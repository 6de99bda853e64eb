"""Routes, hot-swapped handlers, and what a handler holds of the services."""
