"""Images and labels: digits, data sets on disk, batches."""
