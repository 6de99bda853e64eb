"""The process that announces the anycast prefixes of a healthy edge by BGP."""
