"""Bytes to meaning and back, one protocol a file. No I/O here: whoever owns the socket does that."""
