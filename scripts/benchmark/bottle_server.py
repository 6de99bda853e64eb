"""Bottle on gevent's pywsgi: `bottle_server.py PORT [nodelay]`.

pywsgi sends a response in two pieces. Without TCP_NODELAY, which neither bottle nor pywsgi sets, Nagle's algorithm
delays the second piece by 40 ms. `nodelay` sets it, so that the figures show the cost of the work itself.
"""

from gevent import monkey

monkey.patch_all()

import socket
import sys

import bottle
from gevent.pywsgi import WSGIServer

application = bottle.Bottle()


@application.get("/hello")
def hello() -> dict[str, str]:
    """Respond to a request."""
    return {"hello": "world"}


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096)
if "nodelay" in sys.argv[2:]:
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
WSGIServer(listener, application, log=None).serve_forever()
