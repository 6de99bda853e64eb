"""The admin API: one file a subject, each with its routes; `api` is what they share, `application` puts them together.

inbound/admin_server listens; a request passes `access` (which token, which scope), its route, and `audit`.
"""
