"""The internal DNS: its server over UDP and TCP."""
