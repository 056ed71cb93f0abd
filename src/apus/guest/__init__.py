"""The micro guest: a small server image of Debian's own parts, to try a cloud with and to test it with."""
