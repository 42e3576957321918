"""What can go wrong with a service."""

from clients.errors import AssistantError


class ServiceError(AssistantError):
    """The service cannot be installed, removed or asked; the message says what to do."""
