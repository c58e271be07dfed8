"""How fast is it? Candidates timed side by side."""
