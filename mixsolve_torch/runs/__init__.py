"""Work that can be interrupted: its settings are compared, its files locked and written safely."""
