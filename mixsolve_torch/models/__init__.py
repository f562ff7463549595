"""Networks: architectures, and loading what was saved."""
