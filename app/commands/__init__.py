"""The commands, one thin module per subject: parse the arguments, call the rest of the program, print.

serve, replicate       the processes of the Procfile; mesh has the one that announces by BGP
configuration          check, schema; and how every command reads the configuration
explain, simulate      which backend would be selected; geo_frontend finds the frontend and its backends
env_file               the variables in .env, which every command reads first
backends               in a routing database, or at an edge
endpoints, services, tokens    at a running edge, through its admin API; caller finds the URL and the token
handlers               check and run a handler file, for authors of handlers
mesh                   the private network's plan
output                 tables, JSON, error messages and exit codes
"""
