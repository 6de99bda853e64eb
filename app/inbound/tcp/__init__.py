"""TCP frontends: a connection from admission to accounting, and the relay that copies its bytes."""
