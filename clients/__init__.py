"""Thin clients; each speaks only the protocol."""
