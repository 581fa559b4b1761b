"""Writing a trained student in the formats that other engines read."""
