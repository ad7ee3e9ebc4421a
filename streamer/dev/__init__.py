"""What a developer's machine needs: local servers and synthetic viewers."""
