"""What a server is told about an exported file."""
