"""The admin API: one file for each subject's routes; `api` is what they share, `application` puts them together.

inbound/admin_server listens. A request passes `access` (its token) and `api` (its scope), its route, then `audit`.
"""
