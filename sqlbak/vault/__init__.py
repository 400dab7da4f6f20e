"""Where recovery points live. The vault never imports an engine."""
