"""TCP frontends: the story of a connection, and the relay that copies its bytes."""
