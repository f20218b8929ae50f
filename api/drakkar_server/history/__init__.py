"""What the database remembers: written from live objects, read by pages."""
