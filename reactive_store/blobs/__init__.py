"""Where the bytes of files are kept. Nothing here knows documents; what a file is, rows say."""
