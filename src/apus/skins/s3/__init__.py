"""The S3 door to the object store: the same accounts, containers and objects that Swift shows."""
