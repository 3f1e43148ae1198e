"""What the public modules are made of. Nothing here is for users: it may change with any version."""
