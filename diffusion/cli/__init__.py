"""The command line: its options, what its commands do, and how they are stopped."""
