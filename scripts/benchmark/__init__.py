"""What `scripts/bench` is made of, from the command inwards.

command.py    the options, one run from start to table
rounds.py     the interleaved rounds: which row is measured on which peer, when
rows.py       what is measured: each row's load and the figures it yields
peers.py      the proxies under test: edge, HAProxy, nginx
upstreams.py  what stands behind them: HTTP origin, iperf3 server, sink for idle connections
idle.py       that sink, and the client that opens idle connections
bulk.py       the one hot flow that small requests have beside them
processes.py  starting, awaiting, weighing and stopping processes; free ports
machine.py    cores, versions, missing programs
report.py     medians, ratios, the Markdown table
micro.py      in-process figures of the edge: `figures() -> dict[str, float]`
"""
