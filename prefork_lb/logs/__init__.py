"""The access log: lines from records of exchanges, batches of lines, where they go; the error log as JSON."""
