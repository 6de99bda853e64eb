"""Simulates the edge with more clients than one machine can hold.

::

    clients     draws addresses of every country, in proportion to its internet users
    run         lets clients arrive and backends fail, with the pool and the selector of the edge itself
    results     the outcome: connections, tiers, overflow, moves; as JSON for programs
    tables      the results as tables for people
    picture     the results as a map and bars, in SVG

Pure, except that `clients` and `picture` read data files: no sockets, no clock, and randomness only from a seed.
"""
