"""Venues: what takes approved orders. Each implements `tinywindow.safety.ports.Exchange`."""
