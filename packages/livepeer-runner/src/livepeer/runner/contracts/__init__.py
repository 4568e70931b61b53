"""How live streams begin and end, one module per contract."""
