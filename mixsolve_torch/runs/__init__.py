"""Work that can be interrupted: what is kept, locked, recognised and resumed."""
