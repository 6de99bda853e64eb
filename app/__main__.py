"""`python -m app`: patch the standard library for gevent first of all, then hand over to the command line."""

from gevent import events, monkey

# With each of its 25 patches gevent looks for plug-ins in every installed package: 0.2 s, and there are none.
events.notify_and_call_entry_points = events.notify
monkey.patch_all()

from app.cli import main

main()
