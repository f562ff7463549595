"""Any array to a checked loss tensor, and back."""
