"""Parsers and serializers, one protocol per file. They do no I/O: the owner of the socket does."""
