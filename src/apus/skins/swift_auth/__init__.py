"""Swift's own way to log in, before there was Keystone."""
