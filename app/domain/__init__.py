"""The rules, pure: no I/O, no clock and no randomness of their own (both are arguments), no third-party import."""
