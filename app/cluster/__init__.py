"""Replication of backends between machines through etcd, in a process of its own.

`etcd` is the client, `records` defines keys and values, `replicator` maintains the replica of this POP. `store` and
`registrations` change backends. The edge uses none of them: it reads the replica.
"""
