"""Anycast: the process that announces the prefixes of a healthy edge by BGP."""
