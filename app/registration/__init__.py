"""Services that register themselves: the client library they use, and the registrar of an edge without etcd."""
