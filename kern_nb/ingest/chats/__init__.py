"""What the importers of chat logs share: messages, content blocks, exchanges with an API, and batches of them."""
