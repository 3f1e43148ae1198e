"""What programs use beside the queue itself."""
