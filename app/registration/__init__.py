"""Services that register themselves: the client library for them, and the registrar of an edge without etcd."""
