"""The daemon: protocol, server, scheduler, sessions, configuration."""
