"""What an attacker can reach: sets of inputs that some classifiers of a mixture do not read."""
