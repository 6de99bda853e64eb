"""The commands, one file a subject, thin: read what was given, let others do it, print.

serve, replicate       the processes of the Procfile; mesh has the one that announces by BGP
configuration          check, schema; and how every command reads the configuration
explain, simulate      what the election would do; geo_frontend finds whom they ask about
env_file               the variables of .env, which every command reads first
backends               in the routing database, or at an edge that has it
endpoints, services, tokens    at a running edge, over its admin API; caller finds the edge and the token
handlers               for authors of handlers: check and run a file
mesh                   the private network's plan
output                 tables, JSON, and the words and exit codes for what is wrong
"""
