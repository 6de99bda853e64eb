"""The pure rules: no I/O and no third-party imports; the time and the random source are arguments."""
