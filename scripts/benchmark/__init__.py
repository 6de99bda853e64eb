"""What `scripts/bench` is made of, from the command inwards.

command.py    the options, one run from start to table
rounds.py     the interleaved rounds: which row is measured on which peer, when
rows.py       what a row is; tcp_rows.py, http_rows.py and handler_rows.py: each row's load and the figures it yields
peers.py      what a peer under test is; tcp_peers.py and http_peers.py: edge, HAProxy, nginx, Caddy;
              handler_peers.py: edge, Flask on gunicorn, bottle on pywsgi
seed_endpoint.py  the edge's handler, put into its database; bottle_server.py  the server of bottle
upstreams.py  what stands behind them: HTTP origin, iperf3 server, sink for idle connections
loads.py      the load generators wrk and iperf3
idle.py       that sink, and the client that opens idle connections
bulk.py       the one hot flow that small requests have beside them
bodies.py     whole big bodies, asked for over and over
paced.py      small requests at a fixed rate
processes.py  starting, awaiting, weighing and stopping processes; free ports
machine.py    cores, versions, missing programs
report.py     medians, ratios, the Markdown table
micro.py      in-process figures of the edge: `figures() -> dict[str, float]`; micro_gateway.py: those of handlers
"""
