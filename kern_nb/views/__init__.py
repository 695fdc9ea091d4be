"""Results as HTML and text, one file a result. Everything from a store is escaped."""
