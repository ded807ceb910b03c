"""Whole ways of files, from a share to a storage, on real servers."""
