"""Other frameworks' messages and ours: `messages` and `media` are pydantic-ai's, which runs our agents."""
