"""One suite per seam (storage manager, client of a key-value store, transport), run by every implementation."""
