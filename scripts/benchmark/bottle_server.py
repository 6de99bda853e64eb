"""Bottle on gevent's pywsgi: `bottle_server.py PORT [nodelay]`.

pywsgi sends an answer in two pieces, and of the second Nagle's algorithm makes the client wait for 40 ms, as long as
nobody sets TCP_NODELAY. With `nodelay` that is done, which neither bottle nor pywsgi does by itself: then the figures
tell what its work costs.
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
    """Answer a request."""
    return {"hello": "world"}


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096)
if "nodelay" in sys.argv[2:]:
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
WSGIServer(listener, application, log=None).serve_forever()
