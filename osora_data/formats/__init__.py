"""What rows look like, in the formats that are read, and how each becomes one of the four canonical shapes."""
