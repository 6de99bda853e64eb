"""Write the gateway's database of the edge under test: `seed_endpoint.py FILE`, run by the edge's interpreter."""

import sys
import time
from pathlib import Path

from app.domain.endpoints import Endpoint
from app.outbound.peewee_gateway import SqliteGatewayStore

HANDLER = """\
def handle(request, context):
    return {"hello": "world"}
"""

store = SqliteGatewayStore(Path(sys.argv[1]))
store.create_endpoint(Endpoint("hello", "hello", "/hello"))
version = store.add_version("hello", HANDLER)
store.set_deployed("hello", version.number, time.time())
store.close()
