"""The HTTP server: one file a face, wired together in app.py."""
