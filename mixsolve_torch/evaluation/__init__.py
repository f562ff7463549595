"""What randomising buys, measured: evaluation, report, bootstrap."""
