"""The wire corpus: bytes as they come, each with what must be made of them."""
