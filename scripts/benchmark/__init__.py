"""The modules of `scripts/bench`, from the command inwards.

command.py    the options, and one run from start to table
rounds.py     the interleaved rounds: the order in which rows are measured on peers
rows.py       a row; tcp_rows.py, http_rows.py and handler_rows.py: the load and the figures of each row
peers.py      a peer under test; tcp_peers.py and http_peers.py: edge, HAProxy, nginx, Caddy;
              handler_peers.py: edge, Flask on gunicorn, bottle on pywsgi
seed_endpoint.py  writes the edge's handler into its database; bottle_server.py  the bottle server
upstreams.py  the servers behind the peers: HTTP origin, iperf3 server, sink for idle connections
loads.py      the load generators wrk and iperf3
idle.py       the sink, and the client that opens idle connections
bulk.py       a bulk flow that runs beside small requests
bodies.py     large bodies, requested repeatedly
paced.py      small requests at a fixed rate
processes.py  start, wait for, measure and stop processes; free ports
machine.py    cores, versions, missing programs
report.py     medians, ratios, the Markdown table
micro.py      in-process figures of the edge: `figures() -> dict[str, float]`; micro_gateway.py: figures of handlers
"""
