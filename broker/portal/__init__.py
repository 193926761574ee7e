"""What a person sees in a browser: pages made on the server from the same stores as the API."""

from broker.portal.app import add_portal

__all__ = ["add_portal"]
