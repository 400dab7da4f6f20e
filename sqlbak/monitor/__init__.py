"""Being watched: status, metrics, events and the notices that are sent about them."""
