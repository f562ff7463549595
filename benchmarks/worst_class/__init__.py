"""The worst class: a mixture of one run's snapshots against the best of them."""
