"""Self-registration of services: the client library for services, and the registrar of an edge without etcd."""
