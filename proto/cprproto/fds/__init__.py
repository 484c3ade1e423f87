"""Named, owned descriptors: what they are, what the next process must find, and how they move."""
