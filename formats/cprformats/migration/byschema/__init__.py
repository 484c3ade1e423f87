"""Device sections of a stream without description, read by the descriptions of a binary."""
