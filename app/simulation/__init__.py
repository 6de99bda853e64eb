"""What the edge would do with more clients than one machine can hold: drawn, elected for, counted, pictured.

::

    clients     who they are: addresses of every country, in proportion to its internet users
    run         where they go: the pool and the election of the edge itself, clients arriving and backends failing
    results     what came of it: connections, tiers, overflow, moves
    tables      for people to read; results as JSON for programs
    picture     for people to look at: a map and bars, SVG

Pure but for the files of data that `clients` and `picture` read: no sockets, no clock, chance only by a seed.
"""
