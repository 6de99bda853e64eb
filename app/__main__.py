"""`python -m app`: patch the standard library for gevent first of all, then hand over to the command line."""

from gevent import monkey

monkey.patch_all()

from app.cli import main

main()
