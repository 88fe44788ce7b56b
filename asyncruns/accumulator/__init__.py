"""What a stream has told so far, put together: pure, without I/O. `runs` and `responses` are the two wires."""
