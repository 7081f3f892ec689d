"""Bytes to grey pixels, faces in photos, and image files on a disk."""
