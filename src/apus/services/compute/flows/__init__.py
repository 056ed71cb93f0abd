"""Sagas of compute: boot and delete.  Power changes need none: they are a wish that the host settles."""
