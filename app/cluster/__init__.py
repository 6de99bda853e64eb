"""Life beyond one machine, in a process of its own: etcd's client, the replicator, and what is written to etcd.

`etcd` speaks to the servers, `records` says what stands there, `replicator` keeps this POP's copy, `store` and
`registrations` are the one way in which backends are changed. The edge knows none of them: it reads the copy.
"""
