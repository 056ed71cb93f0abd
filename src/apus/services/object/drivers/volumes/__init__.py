"""Copies of objects on one drive, packed.

`VolumeCopies` keeps a drive's objects in *volumes*: files that only grow at their end.  All writes that wait are
appended together and synced once (`journal`).  Which version of what is where stands in a key index (`key_index`):
recent entries in memory, older ones in sorted *runs* on the drive.  The volumes are the truth: the index is what a
scan of them gives, and recovery reads again what was appended since the index was last written (`recovery`).  What is
overwritten and deleted leaves dead bytes behind, which `compaction` gives back.  Objects too large to be moved around
are files of their own (`large`), which a record in a volume makes visible.
"""
