"""From one weight file to another: reading, writing, and the proof that both give the same answer."""
